"""Activations that do not change while a method trains: computed once, stored in memory or on disk."""
