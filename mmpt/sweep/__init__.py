"""Many trials as one command: what each process writes down, and what the process that was started shows of it."""
