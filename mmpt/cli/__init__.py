"""The command line: ``mmpt`` is :func:`mmpt.cli.app.main`, and ``main`` is that of ``train.py``."""

from __future__ import annotations

from mmpt.cli.train import CONF, SWEEPS, main

__all__ = ["CONF", "SWEEPS", "main"]
