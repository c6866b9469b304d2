"""Multi-mask prefix tuning and its peers: one trainer, frozen backbones, comparisons that can be trusted."""

from __future__ import annotations

import os
from typing import Any

# Read by OpenMP when torch is first imported. Threads that spin while they wait slow a shared machine down manyfold; on
# a quiet one, those that sleep at once make a step a third longer. A few spins cost little and save most of that.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"
__all__ = ["__version__", "load", "load_all"]


def load(*args: Any, **kwargs: Any) -> Any:
    """Load a trained run; see :func:`mmpt.predictor.load`, which is imported on first use because it needs torch."""
    from mmpt.predictor import load as load_run

    return load_run(*args, **kwargs)


def load_all(*args: Any, **kwargs: Any) -> Any:
    """Load several runs of one backbone, for batches that mix them; see :func:`mmpt.interop.multi_adapter.load_all`."""
    from mmpt.interop.multi_adapter import load_all as load_runs

    return load_runs(*args, **kwargs)
