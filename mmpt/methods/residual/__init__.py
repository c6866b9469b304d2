"""The method ``residual``: its options without torch in ``options``, its parameters in ``method``."""
