"""Prefixes in a frozen model's attention: the table of architectures, injection, absorbed cross attention."""
