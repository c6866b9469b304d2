"""The method ``ia3``: its options without torch in ``options``, its parameters in ``method``."""
