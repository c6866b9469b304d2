"""The method ``dept``: its options without torch in ``options``, its parameters in ``method``."""
