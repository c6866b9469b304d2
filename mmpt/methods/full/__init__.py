"""The method ``full``: its options without torch in ``options``, its parameters in ``method``."""
