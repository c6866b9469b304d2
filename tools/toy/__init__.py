"""How the bundled toy backbone and its miniature tasks were made."""
