"""What an adapter adds to a model's passes, one file for each kind of model."""
