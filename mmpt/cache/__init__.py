"""Activations that don't change while a method trains: computed once, kept in memory or in a store on disk."""
