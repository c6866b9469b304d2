"""Tasks as data, where examples come from, how they are cut, scored and batched. Imports nothing heavy."""
