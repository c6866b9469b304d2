"""Memory: its peak, and what to do where it runs out. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import gc
import re
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn

_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")  # on a CPU


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on a CPU or GPU, ran out of memory."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and any(one in str(error) for one in _MESSAGES))


def smaller(batch: int, accumulation: int) -> tuple[int, int] | None:
    """Batch size and accumulation of the same product: half of the batch, or the next size below that divides it.

    None where a batch is one example already.
    """
    total = batch * accumulation
    size = next((size for size in range(batch // 2, 0, -1) if total % size == 0), None)
    return None if size is None else (size, total // size)


def advise(error: BaseException, step: int, batch: int, accumulation: int, retry: str) -> TrainingError:
    """Say what would fit instead of ``batch`` examples at once at a step, from 1; ``retry`` is what else helps."""
    fit = smaller(batch, accumulation)
    if fit is None:
        advice = "lower data.max_length, or take a smaller backbone or model.dtype=bfloat16"
    else:
        sizes = f"trainer.per_device_train_batch_size={fit[0]} trainer.gradient_accumulation_steps={fit[1]}"
        advice = f"set {sizes} for the same losses{retry}"
    return TrainingError(f"out of memory at step {step}, with {batch} examples at once ({_reason(error)}); {advice}")


@contextlib.contextmanager
def oom_as_error(batch: int) -> Iterator[None]:
    """Raise a TrainingError with the setting that would fit where an evaluation or the encoder pass runs out of memory.

    ``batch`` is ``evaluation.batch_size``.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        advice = "lower data.max_length" if batch == 1 else f"set evaluation.batch_size={batch // 2}"
        where = f"out of memory in an evaluation or the encoder pass, with {batch} examples at once"
        raise TrainingError(f"{where} ({_reason(error)}); {advice}") from error


class MicroBatches:
    """Passes over a batch, in ever more pieces where memory runs out; a step's losses and gradients add up the same."""

    def __init__(self, notify: Callable[[str], object]) -> None:
        """Begin with whole batches; ``notify`` receives a line each time their number grows."""
        self.count = 1
        self._notify = notify

    def run(self, one: Callable[[dict[str, Tensor]], Tensor], batch: dict[str, Tensor], module: nn.Module) -> Tensor:
        """Forward and backward of a batch, tensors of B rows each; returns the loss, ().

        ``one`` does both for some rows, and returns their share of the loss. An error of its own is raised, out of
        memory only where a single row does not fit. Gradients of ``module`` are restored before another try.
        """
        rows = len(batch["labels"])
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        gradients = [None if parameter.grad is None else parameter.grad.clone() for parameter in trained]
        from mmpt.training.checkpoint import random_state, set_random_state

        state = random_state()
        while True:
            size = -(-rows // self.count)
            try:
                starts = range(0, rows, size)
                losses = [one({name: value[at : at + size] for name, value in batch.items()}) for at in starts]
                return sum(losses[1:], losses[0])
            except Exception as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
                reason = _reason(error)
            self.count *= 2
            self._notify(
                f"out of memory ({reason}); continuing with {-(-rows // self.count)} examples at once, not {size}"
            )
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = None if gradient is None else gradient.clone()
            gc.collect()
            if "cuda" in state:
                sys.modules["torch"].cuda.empty_cache()
            set_random_state(state)


def _reason(error: BaseException) -> str:
    text = re.sub(r"^\[.*?\][ .]*", "", " ".join(str(error).split()))  # torch's file and line
    return text.split(". ")[0][:160] or type(error).__name__


def peak_memory() -> int:
    """Peak bytes since :func:`reset_peak_memory`: of the GPU's allocator where there is one, else of this process."""
    torch = sys.modules["torch"]
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError, StopIteration):  # Linux; the figure of getrusage cannot be reset
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory() -> None:
    """Forget the peak of an earlier run in this process, where the system lets us."""
    torch = sys.modules["torch"]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
