"""Frozen backbones, and how a method's prefix gets into their attention."""
