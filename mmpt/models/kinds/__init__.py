"""The engines of runs, one file for each kind of model; :mod:`mmpt.models.engine` chooses."""
