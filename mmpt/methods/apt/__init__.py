"""The method ``apt``: its options without torch in ``options``, its parameters in ``method``."""
