"""Multi-mask prefix tuning and its peers: one trainer, frozen backbones, comparisons that can be trusted."""

from __future__ import annotations

import os
from typing import Any

# Read by OpenMP when torch is first imported: threads that wait by spinning slow a shared machine down manyfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(*args: Any, **kwargs: Any) -> Any:
    """Load a trained run; see :func:`mmpt.predictor.load`, which is imported on first use because it needs torch."""
    from mmpt.predictor import load as load_run

    return load_run(*args, **kwargs)
