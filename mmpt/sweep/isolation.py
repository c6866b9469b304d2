"""A trial in a sweep gives what it gives alone: global state of a process is restored between trials."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path


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
