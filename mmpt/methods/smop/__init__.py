"""The method ``smop``: its options without torch in ``options``, its parameters in ``method``."""
