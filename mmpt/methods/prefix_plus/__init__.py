"""The method ``prefix_plus``: its options without torch in ``options``, its parameters in ``method``."""
