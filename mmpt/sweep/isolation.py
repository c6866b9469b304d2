"""A trial in a sweep gives what it gives alone: its process is restored afterwards, and has a share of the machine."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import itertools
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_slot: list[int] = []  # file descriptor of this process's slot; the system unlocks it when the process ends


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Undo afterwards what a trial changes in its process: environment, warnings, threads, dtype, W&B run, memory.

    Seeds and peak memory are set at the start of every run (``mmpt.training.run``).
    """
    environment, torch = dict(os.environ), sys.modules.get("torch")
    threads, dtype = (None, None) if torch is None else (torch.get_num_threads(), torch.get_default_dtype())
    try:
        os.environ.pop("WANDB_RUN_ID", None)  # the id of one run, and these are many
        with warnings.catch_warnings():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        if torch is not None:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
        _release()


@cache
def freeze_imported() -> None:
    """Let the garbage collector ignore, once a process, the objects that exist by now: modules, for the most part.

    Each trial collects several times, and looking at some 400,000 objects that stay takes 0.2 s.
    """
    gc.freeze()


def _release() -> None:
    """Close a W&B run that a failed trial left open, and release memory."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        with contextlib.suppress(Exception):  # a logger never fails a trial
            wandb.finish(exit_code=1)
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def printing_to(path: Path | None) -> Iterator[None]:
    """Send everything this process prints to a file; None leaves it where it goes."""
    if path is None:
        yield
        return
    opened = path.open("a", encoding="utf-8", buffering=1)
    with opened as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


def claim_share(folder: Path, parent: int, at_once: int | None) -> None:
    """Claim this process's share of the machine, once, before torch looks at it: threads and GPUs in turn.

    Slots are locked files in the sweep's ``folder``. A trial in the command's own process, ``parent``, has the machine
    for itself. ``at_once`` is None where Slurm or Ray assigns cores and GPUs.
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
