"""The method ``lora``: its options without torch in ``options``, its parameters in ``method``."""
