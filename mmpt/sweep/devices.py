"""What of the machine a trial may use while others run beside it: processor threads and a GPU."""

from __future__ import annotations

import fcntl
import itertools
import os
import platform
import sys
from pathlib import Path

_slot: list[int] = []  # file descriptor of this process's slot; the system unlocks it when the process ends


def claim_share(folder: Path, parent: int, at_once: int | None) -> None:
    """Claim this process's share of the machine, once, before torch looks at it: threads and GPUs in turn.

    Args:
        folder: The sweep's folder; slots are locked files in it.
        parent: Process id of the command; a trial in that very process has the machine for itself.
        at_once: Trials at once on this machine; None where Slurm or Ray assigns cores and GPUs.
    """
    if _slot or at_once is None or os.getpid() == parent:
        return
    slot = _claim_slot(folder)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // at_once)))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"].split(",")[0]))
    gpus = visible_gpus()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _claim_slot(folder: Path) -> int:
    """Lock the first slot that no living process holds; slots of one machine are numbered from 0."""
    for slot in itertools.count():
        descriptor = os.open(folder / f"{platform.node()}-{slot}.slot", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        _slot.append(descriptor)
        return slot
    raise AssertionError("unreachable")
