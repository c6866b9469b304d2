"""Tools of the project itself, apart from the installed package."""
