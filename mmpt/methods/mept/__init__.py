"""The method ``mept``: its options without torch in ``options``, its parameters in ``method``."""
