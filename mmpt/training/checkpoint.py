"""Checkpoints: ``checkpoint-STEP/state.safetensors`` has all tensors, ``state.json`` all else that a resume needs.

A checkpoint is written under another name and renamed, so it is complete or absent. A run directory may come from
elsewhere (docs/security.md): nothing in a checkpoint is executed, and its tensors must be those that this run would
write, by name, shape and type.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.config.typed_build import Problems, build
from mmpt.errors import AdapterError, RunError
from mmpt.methods.base import saved_tensors
from mmpt.models.adapter_files import load_state, read_state, serialised
from mmpt.training.optim import state_template
from mmpt.utils.files import read_json, write_bytes, write_json, writing
from mmpt.utils.untrusted import one_line

FORMAT = 2  # format 1 was that of transformers' Trainer
TENSORS, STATE = "state.safetensors", "state.json"
PARAMETERS, OPTIMIZER, RANDOM = "parameters.", "optimizer.", "random."  # how names of tensors begin
_OLD_STATE = "trainer_state.json"  # of format 1


@dataclass
class State:
    """Where training is."""

    step: int = 0  # optimizer steps so far
    rate_step: int = 0  # the step of the learning-rate schedule; a step that float16 overflowed in does not count
    # of each process, the loss summed since the last log line
    losses: list[float] = dataclasses.field(default_factory=lambda: [0.0])
    logged: int = 0  # step of that line
    best_step: int | None = None  # step of the best evaluation
    best_value: float | None = None  # its value
    stale: int = 0  # evaluations since then
    over: bool = False  # whether early stopping ended training
    evaluation_due: bool = False  # whether the evaluation of this step was cut short
    metrics_bytes: int = 0  # size of metrics.jsonl
    # of torch.amp.GradScaler, which scales the loss in float16
    scaler: dict[str, float] = dataclasses.field(default_factory=dict)
    format: int = FORMAT  # of the checkpoint


def write_checkpoint(directory: Path, state: State, tensors: Mapping[str, Tensor], limit: int) -> None:
    """Write a checkpoint of a state and its :func:`tensors_of`, and delete the oldest ones beyond a limit.

    The best and the newest one stay. RunError: it cannot be written; earlier ones are as they were.
    """
    target = directory / f"checkpoint-{state.step}"
    draft, old = (target.with_name(f".{target.name}.{ending}") for ending in ("tmp", "old"))
    try:
        write_bytes(draft / TENSORS, serialised(tensors))
        write_json(draft / STATE, dataclasses.asdict(state))
        if target.exists():
            target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        stays, present = {target, directory / f"checkpoint-{state.best_step}"}, _by_step(directory)
        for surplus in [path for path in present if path not in stays][: max(0, len(present) - limit)]:
            shutil.rmtree(surplus)
    except (OSError, RunError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        last = last_checkpoint(directory)
        raise RunError(
            f"checkpoint {target} cannot be written ({reason}); "
            f"{'no earlier one exists' if last is None else f'{last.name} remains'}; free space there, "
            "and give the same command again to resume"
        ) from error


def last_checkpoint(directory: Path) -> Path | None:
    """The newest complete checkpoint, None where there is none; what a killed process left half written is deleted.

    RunError: the checkpoints were written by an older mmpt.
    """
    if not directory.is_dir():
        return None
    for remnant in directory.glob(".checkpoint-*"):
        name = directory / remnant.stem[1:]
        if remnant.suffix == ".old" and not name.exists():
            with writing(name):
                remnant.rename(name)
        else:
            shutil.rmtree(remnant, ignore_errors=True)  # a disk that cannot be written is reported at the next write
    checkpoints = _by_step(directory)
    while checkpoints:
        newest = checkpoints.pop()
        if (newest / _OLD_STATE).exists():
            raise RunError(
                f"checkpoint {newest} was written by an older mmpt (format 1) and cannot be resumed; begin again with "
                "run.overwrite=true"
            )
        if _is_complete(newest):
            return newest
        shutil.rmtree(newest, ignore_errors=True)
    return None


def _by_step(directory: Path) -> list[Path]:
    named = (path for path in directory.iterdir() if re.fullmatch(r"checkpoint-[0-9]{1,18}", path.name))
    return sorted(named, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.name.split("-")[1])


def _is_complete(checkpoint: Path) -> bool:
    try:
        best = read_progress(checkpoint).best_step
        for step in (step_of(checkpoint), *([] if best is None else [best])):
            read_state(checkpoint.with_name(f"checkpoint-{step}") / TENSORS)
    except (AdapterError, RunError):
        return False
    return True


def read_progress(checkpoint: Path) -> State:
    """Read where training was; RunError where ``state.json`` is missing, or holds what no training writes."""
    path, problems = checkpoint / STATE, Problems()
    state: State = build(State, read_json(path), "", problems)
    if problems.found:
        raise RunError(f"{path}: {problems.found[0][1]}")
    counts = (state.step, state.rate_step, state.logged, state.stale, state.metrics_bytes)
    numbers = [*state.losses, *state.scaler.values()]
    valid = state.format == FORMAT and state.step == step_of(checkpoint) and all(0 <= count < 2**63 for count in counts)
    valid = valid and max(state.rate_step, state.logged, state.best_step or 0) <= state.step and len(state.losses) > 0
    valid = valid and (state.best_step is None or state.best_step >= 0)
    if not valid or not all(map(math.isfinite, numbers)):
        raise RunError(f"{path} holds numbers that step {step_of(checkpoint)} of this run cannot have")
    return state


def tensors_of(
    module: nn.Module, optimizer: torch.optim.Optimizer, generators: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """All tensors of a checkpoint: trained parameters, the optimizer's state, and each process's random generators."""
    tensors = {name: value.detach() for name, value in _named(PARAMETERS, saved_tensors(module)).items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        tensors |= _named(f"{OPTIMIZER}{number}.", optimizer.state.get(parameter, {}))
    for rank, states in enumerate(generators):
        tensors |= _named(f"{RANDOM}{rank}.", states)
    return tensors


def restore(
    checkpoint: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    rank: int,
    processes: int,
) -> State:
    """Set trained parameters, the states of optimizer and scaler, and this process's random generators.

    Returns where training was. RunError: the checkpoint is not one that this run writes.
    """
    with _reading(checkpoint):
        state, tensors = read_progress(checkpoint), read_state(checkpoint / TENSORS)
        if len(state.losses) != processes:
            raise RunError(f"it was written by {len(state.losses)} processes, this run has {processes}")
        expected = _named(PARAMETERS, saved_tensors(module))
        moments = {number: _part(tensors, f"{OPTIMIZER}{number}.") for number, _ in enumerate(_parameters(optimizer))}
        for number, parameter in enumerate(_parameters(optimizer)):
            if moments[number]:  # none of a parameter that had no gradient yet
                expected |= _named(f"{OPTIMIZER}{number}.", state_template(optimizer, parameter))
        for number in range(processes):
            expected |= _named(f"{RANDOM}{number}.", random_state())
        _require(tensors, expected)
        load_state(module, _part(tensors, PARAMETERS), checkpoint.name)
        for number, parameter in enumerate(_parameters(optimizer)):
            if values := moments[number]:
                moved = {name: value.to(parameter.device) for name, value in values.items()}
                optimizer.state[parameter] = {**moved, "step": values["step"]}
        # torch refuses floats where it counts: each number gets the type that a new scaler has.
        known = scaler.state_dict()
        if known.keys() != state.scaler.keys():
            raise RunError(f"its scaler has {sorted(state.scaler)}, in this run it has {sorted(known)}")
        scaler.load_state_dict({name: type(value)(state.scaler[name]) for name, value in known.items()})
        set_random_state(_part(tensors, f"{RANDOM}{rank}."))
        return state


def load_parameters(checkpoint: Path, module: nn.Module) -> None:
    """Set trained parameters to those of a checkpoint; RunError where it is not one that this run writes."""
    with _reading(checkpoint):
        load_state(module, _part(read_state(checkpoint / TENSORS), PARAMETERS), checkpoint.name)


def random_state() -> dict[str, Tensor]:
    """The state of all random generators of this process."""
    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words),
        "numpy": torch.tensor([*map(int, keys), int(position), int(has_gauss)]),
        "gauss": torch.tensor([math.nan if gauss is None else gauss, float(cached)], dtype=torch.float64),
    }
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def set_random_state(states: Mapping[str, Tensor]) -> None:
    """Set all random generators of this process."""
    gauss, cached = states["gauss"].tolist()
    *keys, position, has_gauss = states["numpy"].tolist()
    torch.set_rng_state(states["torch"])
    random.setstate((3, tuple(states["python"].tolist()), None if math.isnan(gauss) else gauss))
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _require(tensors: Mapping[str, Tensor], templates: Mapping[str, Tensor]) -> None:
    """Reject tensors of other names, shapes or types than expected."""
    present, expected = (
        {name: (tuple(value.shape), value.dtype) for name, value in them.items()} for them in (tensors, templates)
    )
    if present != expected:
        name = next(name for name in sorted(present | expected) if present.get(name) != expected.get(name))
        raise RunError(f"{name[:80]!r} is {present.get(name)}, in this run it is {expected.get(name)}")


@contextlib.contextmanager
def _reading(checkpoint: Path) -> Iterator[None]:
    """Raise a RunError in place of any error that the content of a checkpoint's files causes."""
    try:
        yield
    except Exception as error:
        raise RunError(
            f"checkpoint {checkpoint} is damaged or from elsewhere ({one_line(error)[:300]}); delete it to resume from "
            "the one before, or set run.overwrite=true to begin again"
        ) from error
