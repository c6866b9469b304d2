"""A run's directory, its records, and what it shows on the screen and in loggers."""
