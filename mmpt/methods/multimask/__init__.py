"""The method ``multimask``: its options without torch in ``options``, its parameters in ``method``."""
