"""The method ``ptuning``: its options without torch in ``options``, its parameters in ``method``."""
