"""One run on several processes, as torchrun and accelerate start them: rank 0 writes the records, all compute."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from mmpt.errors import RunError
from mmpt.runs.record import RunRecord, State

T = TypeVar("T")


def rank() -> int:
    """This process's number among those of the run; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Meet the other processes, where there are any: NCCL between GPUs, gloo between CPUs."""
    if count() == 1 or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(minutes=30))


def leave() -> None:
    """Part from the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def any_rank(here: bool) -> bool:
    """Whether something holds for any process; each must ask."""
    return sum_of_ranks(int(here)) > 0


def sum_of_ranks(here: int) -> int:
    """The sum of a number over all processes; each must ask."""
    if count() == 1:
        return here
    total = torch.tensor([here])
    distributed.all_reduce(total, group=_host_group())
    return int(total)


@functools.cache
def _host_group() -> distributed.ProcessGroup | None:
    """A group whose messages no GPU waits for."""
    return None if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo")


def broadcast(make: Callable[[], T]) -> T:
    """Have rank 0 call ``make``, and send its value, which must be picklable, to all.

    Where rank 0 fails, it raises its own error, and the others a RunError.
    """
    if count() == 1:
        return make()
    shared: list[Any] = [None, None]
    error: Exception | None = None
    if rank() == 0:
        try:
            shared = [make(), None]
        except Exception as failure:
            error, shared = failure, [None, str(failure)]
    distributed.broadcast_object_list(shared, src=0)
    if error is not None:
        raise error
    if shared[1] is not None:
        raise RunError(shared[1])
    value: T = shared[0]
    return value


def open_record(make: Callable[[], RunRecord]) -> RunRecord:
    """Open the run directory by ``make`` on rank 0, and a stand-in for it on the others; errors come on every rank."""
    own: list[RunRecord] = []

    def opened() -> tuple[Path, str, State]:
        own.append(make())
        return own[0].directory, own[0].fingerprint, own[0].state

    directory, fingerprint, state = broadcast(opened)
    return own[0] if own else StandIn(directory, fingerprint, state)


class StandIn(RunRecord):
    """Where ranks beside the first write: a folder that vanishes. Checkpoints are shared, the trainer divides them."""

    def __init__(self, directory: Path, fingerprint: str, state: State) -> None:
        """Make the folder, from what rank 0 opened."""
        self._folder = tempfile.TemporaryDirectory(prefix="mmpt-rank-")
        super().__init__(Path(self._folder.name), fingerprint, os.open(os.devnull, os.O_RDONLY))
        self.checkpoints_dir, self.state = directory / "checkpoints", state

    def close(self) -> None:
        """Remove the folder."""
        self._lock = None
        self._folder.cleanup()
