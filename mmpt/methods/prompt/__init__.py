"""The method ``prompt``: its options without torch in ``options``, its parameters in ``method``."""
