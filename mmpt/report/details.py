"""What runs have beyond results: predictions, metrics over training, and masks of adapters. Read where asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.errors import RunError
from mmpt.report.run import Run
from mmpt.runs import names
from mmpt.runs.typed_json import number
from mmpt.utils.files import read_jsonl
from mmpt.utils.untrusted import one_line, parse_json, read_text

Lines = Sequence[dict[str, Any]]
Points = list[tuple[float, float]]
Masks = dict[str, npt.NDArray[np.float64]]
LARGEST_MASK = 20_000  # values of one adapter that are drawn


def predictions(directory: Path | None) -> Iterator[dict[str, Any]]:
    """Read a run's test predictions, one mapping an example; a ValueError says in one line why there are none."""
    if directory is None:
        raise ValueError("no predictions, since the run directories are not given")
    try:
        yield from read_jsonl(directory / "predictions.jsonl")
    except (OSError, RunError) as error:
        why = getattr(error, "strerror", error)
        raise ValueError(f"predictions of {one_line(directory.name)} cannot be read ({why})") from error


def metrics(run: Run) -> Lines:
    """Read a run's metrics.jsonl, one mapping a line; a line that cannot be read ends the list."""
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, RunError):
        lines.extend(read_jsonl(run.directory / "metrics.jsonl") if run.directory is not None else ())
    return lines


def curve(lines: Lines, name: str) -> Points:
    """One of the metrics, such as ``validation/loss``, as (step, value); what is not a number is left out."""
    points = [(number(line.get("step")), number(line.get(name))) for line in lines]
    return [(step, value) for step, value in points if step is not None and value is not None]


def routes(lines: Lines) -> list[list[float]]:
    """The share of validation examples of each route, a value an evaluation; empty for a method without routes."""
    evaluations = [line for line in lines if names.ROUTE_LOAD.format(route=0) in line]
    keys = map(names.ROUTE_LOAD.format_map, ({"route": route} for route in count()))
    logged = takewhile(lambda key: any(key in line for line in evaluations), keys)
    return [[number(line.get(key)) or 0.0 for line in evaluations] for key in logged]


def routes_by_task(lines: Lines) -> dict[str, list[float]]:
    """The mean probability of each route at the last evaluation, by task of a mixture; empty without one."""
    by_task: dict[str, list[float]] = {}
    last: dict[str, Any] = next((line for line in reversed(lines) if names.ROUTE_ENTROPY in line), {})
    first = names.ROUTE_OF_TASK.format(route=0, task="")
    for task in (name.removeprefix(first) for name in last if name.startswith(first)):
        keys = (names.ROUTE_OF_TASK.format(route=route, task=task) for route in count())
        by_task[task] = [number(last[key]) or 0.0 for key in takewhile(last.__contains__, keys)]
    return by_task


def masks(run: Run) -> tuple[Masks, str]:
    """Read the masks of a run's adapter.

    Returns:
        Site -> what each route lets through, (R, S, L) in [0, 1], as :meth:`mmpt.methods.layout.Layout.shown` gives it,
        empty without masks; and one line where they cannot be read.
    """
    path = Path() if run.directory is None else run.directory / "adapter" / "adapter.safetensors"
    if not path.is_file():
        return {}, ""
    from safetensors import SafetensorError, safe_open

    granularity, temperature = _mask_options(path.with_suffix(".json"))
    found: Masks = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in (name for name in file.keys() if name.startswith("masks.")):  # noqa: SIM118 (not a mapping)
                values = np.asarray(file.get_tensor(name), dtype=np.float64)
                found |= _by_layer(name.removeprefix("masks."), 1 / (1 + np.exp(-values / temperature)), granularity)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        return {}, f"masks of {run.name} cannot be read ({one_line(error)})"
    if sum(value.size for value in found.values()) > LARGEST_MASK:
        return {}, f"masks of {run.name} have more than {LARGEST_MASK} values and are not drawn"
    if not all(np.isfinite(value).all() for value in found.values()):
        return {}, f"masks of {run.name} hold values that are not numbers"
    return found, ""


def _by_layer(site: str, values: npt.NDArray[np.float64], granularity: str) -> Masks:
    """Masks of one site as (R, S, L); finer ones are averaged over heads, or divided into keys and values."""
    if granularity == "key_value" and values.ndim > 2:
        named = {f"{site}_keys": values[..., 0], f"{site}_values": values[..., 1]}
    else:
        named = {site: values.mean(axis=-1) if granularity == "head" and values.ndim > 2 else values}
    return {name: one if one.ndim == 3 else one[None] for name, one in named.items() if one.ndim in (2, 3)}


def _mask_options(path: Path) -> tuple[str, float]:
    """``mask_granularity`` and ``mask_temperature`` of an adapter, or their defaults."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        options = parse_json(read_text(path))["method"]["options"]
        temperature = float(options.get("mask_temperature", 1.0))
        return str(options.get("mask_granularity", "layer")), temperature if temperature > 0 else 1.0
    return "layer", 1.0
