"""The method ``prefix``: its options without torch in ``options``, its parameters in ``method``."""
