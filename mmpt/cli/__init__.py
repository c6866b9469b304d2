"""The command lines. ``main`` is that of ``train.py``."""

from __future__ import annotations

from mmpt.cli.train import CONF, SWEEPS, main

__all__ = ["CONF", "SWEEPS", "main"]
