"""The device of a run, and its processes, as torchrun and accelerate start them: rank 0 writes records, all compute."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import distributed

from mmpt.config.schema import TrainerConfig
from mmpt.errors import ConfigError, RunError
from mmpt.runs.record import RunRecord, State

T = TypeVar("T")
_TF32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32  # as this process began


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


def prepare_device(settings: TrainerConfig) -> Accelerator:
    """Set PyTorch's global switches to what the settings need; ConfigError where the device cannot do that.

    Mixed precision is not set here: accelerate allows one kind per process, and a sweep's trials may differ in it.
    """
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    gpu = accelerator.device.type == "cuda"
    problems = []
    if settings.fp16 and not gpu:
        problems.append("trainer.fp16=true needs a GPU, and there is none; set trainer.bf16=true or leave it out")
    if settings.bf16 and gpu and not torch.cuda.is_bf16_supported():
        problems.append("trainer.bf16=true: this GPU has no bfloat16; set trainer.fp16=true or leave it out")
    if settings.tf32 and not (gpu and torch.cuda.get_device_capability()[0] >= 8):
        problems.append("trainer.tf32=true needs a GPU of the Ampere generation or later; leave it out")
    if problems:
        raise ConfigError(problems)
    if gpu:  # null too: the trial before may have set it
        products, convolutions = _TF32 if settings.tf32 is None else (settings.tf32, settings.tf32)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions
    if settings.full_determinism:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(settings.full_determinism)
    return accelerator
