"""What a checkpoint says, compared with what this run would write, before transformers and torch take it over.

A run directory may come from elsewhere (docs/security.md). transformers reads no objects out of a checkpoint, but it
believes every number and name in it: attributes of its own callbacks are set by name, tensors of any size are copied.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerState
from transformers.trainer_callback import ExportableState

from mmpt.config.typed_build import Problems, build
from mmpt.errors import RunError
from mmpt.utils.files import read_json

STATE, PROGRESS = "trainer_state.json", "progress_{rank}.json"


@dataclasses.dataclass(frozen=True)
class _Stated:
    """What transformers computes with; the rest of its state is set anew, or only written again."""

    global_step: int
    epoch: float = 0.0
    logging_steps: float = 1
    eval_steps: float = 1
    save_steps: float = 1
    num_input_tokens_seen: int = 0
    total_flos: float = 0.0
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    log_history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    stateful_callbacks: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Progress:
    """What transformers doesn't keep.

    Attributes:
        loss: Summed since the last log line.
        logged: Step of that line.
        metrics: Bytes of metrics.jsonl.
    """

    loss: float
    logged: int
    metrics: int


def read_progress(checkpoint: Path, rank: int) -> Progress:
    """Read a rank's progress.

    Raises:
        RunError: The file is missing, or holds anything else.
    """
    path = checkpoint / PROGRESS.format(rank=rank)
    problems = Problems()
    found = build(Progress, read_json(path), "", problems)
    if problems.found:
        raise RunError(f"{path}: {problems.found[0][1]}")
    if not (math.isfinite(found.loss) and 0 <= found.logged <= step_of(checkpoint) and 0 <= found.metrics < 2**63):
        raise RunError(f"{path} holds numbers that can't be: {found}")
    return found


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's name says."""
    return int(checkpoint.name.split("-")[1])


def check_state(checkpoint: Path, own: Iterable[object]) -> None:
    """Check ``trainer_state.json``.

    Args:
        checkpoint: Its directory.
        own: Callbacks of the trainer, and its control.

    Raises:
        RunError: It holds what this run wouldn't write.
    """
    path = checkpoint / STATE
    content, problems = read_json(path), Problems()
    kept = {item.name for item in dataclasses.fields(_Stated)}
    if unknown := sorted(set(content) - {item.name for item in dataclasses.fields(TrainerState)}):
        raise RunError(f"{path} has {unknown[0]}, which is no state of a trainer")
    stated = build(_Stated, {name: value for name, value in content.items() if name in kept}, "", problems)
    if problems.found:
        raise RunError(f"{path}: {problems.found[0][1]}")
    best = stated.best_global_step
    numbers = (stated.epoch, stated.total_flos)
    positive = (stated.logging_steps, stated.eval_steps, stated.save_steps)
    sound = all(map(math.isfinite, (*numbers, *positive))) and min(positive) > 0 and stated.epoch >= 0
    if not sound or stated.global_step != step_of(checkpoint) or not 0 <= (best or 0) <= stated.global_step:
        raise RunError(f"{path} holds numbers that can't be those of step {step_of(checkpoint)}")
    states = {type(one).__name__: one.state() for one in own if isinstance(one, ExportableState)}
    for name in stated.stateful_callbacks.keys() & states.keys():
        refuse_other(stated.stateful_callbacks[name], states[name], f"{path}: {name}")


def check_optimizer(state: Any, optimizer: Any, where: str) -> None:
    """Check an optimizer's state: its settings are of the same kinds, its tensors those that the parameters need.

    Args:
        state: What was loaded.
        optimizer: Of :mod:`mmpt.training.optim`; takes it over.
        where: How to call it in an error.

    Raises:
        RunError: Other settings, or other tensors.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("state"), Mapping):
        raise RunError(f"{where} is no state of an optimizer")
    _check_groups(state.get("param_groups"), optimizer.state_dict()["param_groups"], f"{where}: param_groups")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise RunError(f"{where} has a state of parameter {str(number)[:80]}, which isn't there")
        expected = _kept_of(parameters[number], optimizer)
        found = {name: _numbers(value) for name, value in values.items()} if isinstance(values, Mapping) else None
        if found and found != expected:
            raise RunError(f"{where}: parameter {number} has {found}, this run has {expected} there")


def _check_groups(stated: Any, own: list[dict[str, Any]], where: str) -> None:
    """Compare settings by group; flags may be missing, and be there, as those of other versions are."""
    if not isinstance(stated, list) or len(stated) != len(own) or not all(isinstance(one, Mapping) for one in stated):
        raise RunError(f"{where} is {_kind(stated)}, this run has {_kind(own)} there")
    for found, group in zip(stated, own, strict=True):
        needed = {name for name, value in group.items() if not isinstance(value, bool | None)}
        if lacking := sorted(needed - set(found)):
            raise RunError(f"{where} lacks {lacking[0]}")
        refuse_other({name: value for name, value in found.items() if name in group or not _plain(value)}, group, where)


def _kept_of(parameter: nn.Parameter, optimizer: object) -> dict[str, tuple[int, ...]]:
    """Shapes of what our optimizers keep of a parameter, by name."""
    whole = tuple(parameter.shape)
    if isinstance(optimizer, torch.optim.AdamW):
        return {"step": (), "exp_avg": whole, "exp_avg_sq": whole}
    if len(whole) < 2:
        return {"step": (), "exp_avg_sq": whole, "RMS": ()}
    return {"step": (), "exp_avg_sq_row": whole[:-1], "exp_avg_sq_col": whole[:-2] + whole[-1:], "RMS": ()}


def _numbers(value: object) -> tuple[int, ...] | str:
    """The shape of a number or of a tensor of them; of anything else its kind."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return tuple(value.shape)
    return () if type(value) in (int, float) else _kind(value)


def read_tensors(path: Path) -> Any:
    """What torch makes of a file without objects; its tensors stay in the file until they are used.

    Raises:
        OSError: The file can't be read.
        Exception: Of torch, for what isn't such a file.
    """
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def check_scheduler(state: Any, scheduler: Any, where: str) -> None:
    """Check a schedule's state: values become attributes of the schedule, by their names.

    Args:
        state: What was loaded.
        scheduler: Takes it over.
        where: How to call it in an error.

    Raises:
        RunError: Other names, or values of another kind.
    """
    own, kind = scheduler.state_dict(), type(getattr(scheduler, "scheduler", scheduler))
    if not isinstance(state, Mapping):
        raise RunError(f"{where} is {_kind(state)}, no state of a schedule")
    extra = {
        name for name, value in state.items() if name not in own and _plain(value) and not hasattr(kind, str(name))
    }
    refuse_other({name: value for name, value in state.items() if name not in extra}, own, where)


def refuse_other(stated: Any, own: Any, where: str) -> None:
    """Compare plain values by names, kinds, lengths and shapes; numbers, texts and flags may differ.

    A mapping may lack names, as older versions do.

    Raises:
        RunError: The first difference.
    """
    if isinstance(own, Mapping) and isinstance(stated, Mapping):
        for name, value in stated.items():
            if name not in own:
                raise RunError(f"{where} has {str(name)[:80]!r}, which isn't known")
            refuse_other(value, own[name], f"{where}.{name}")
    elif isinstance(own, list | tuple) and type(stated) is type(own) and len(stated) == len(own):
        for number, (value, other) in enumerate(zip(stated, own, strict=True)):
            refuse_other(value, other, f"{where}[{number}]")
    elif isinstance(own, Tensor) and isinstance(stated, Tensor) and stated.shape == own.shape:
        return
    elif isinstance(own, Mapping | list | tuple | Tensor) or not _alike(stated, own):
        raise RunError(f"{where} is {_kind(stated)}, this run has {_kind(own)} there")


def _plain(value: object) -> bool:
    """Whether a value is one that versions of a library add for a setting of their own."""
    return type(value) in (bool, int, float, str, type(None))


def _alike(stated: object, own: object) -> bool:
    """Whether two values are of one kind; an integer is a number too."""
    return type(stated) is type(own) or (type(own) is float and type(stated) is int)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    size = f" of {len(value)}" if isinstance(value, Mapping | list | tuple) else ""
    return f"a {type(value).__name__}{size}"
