"""The command lines. ``main`` is that of ``train.py``."""

from __future__ import annotations

from mmpt.cli.train import main

__all__ = ["main"]
