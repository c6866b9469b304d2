"""Running an experiment: training, evaluation, the run directory, and what is shown and logged meanwhile."""
