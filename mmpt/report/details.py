"""What figures show beyond results: metrics over training, and the masks of adapters. Read only where asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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

Points = list[tuple[float, float]]
Masks = dict[str, npt.NDArray[np.float64]]
LARGEST_MASK = 20_000  # values of one adapter that are drawn


def metrics(run: Run) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl, one mapping a line; a line that cannot be read ends the list."""
    lines: list[dict[str, Any]] = []
    if run.directory is not None:
        with contextlib.suppress(OSError, RunError):
            lines.extend(read_jsonl(run.directory / "metrics.jsonl"))
    return lines


def predictions(directory: Path | None) -> Iterator[dict[str, Any]]:
    """Read a run's test predictions, one mapping an example.

    Raises:
        ValueError: In one line, why there are none.
    """
    if directory is None:
        raise ValueError("no predictions, since the run directories are not given")
    try:
        yield from read_jsonl(directory / "predictions.jsonl")
    except (OSError, RunError) as error:
        why = getattr(error, "strerror", error)
        raise ValueError(f"predictions of {one_line(directory.name)} cannot be read ({why})") from error


def curve(lines: list[dict[str, Any]], name: str) -> Points:
    """Take one metric over steps, as (step, value); what is not a number is left out.

    Args:
        lines: Of :func:`metrics`.
        name: A key such as ``validation/loss``.
    """
    points = [(number(line.get("step")), number(line.get(name))) for line in lines]
    return [(step, value) for step, value in points if step is not None and value is not None]


def routes(lines: list[dict[str, Any]]) -> list[list[float]]:
    """Take the share of validation examples of each route, one value an evaluation; empty for a method without routes.

    Args:
        lines: Of :func:`metrics`.
    """
    loads: list[list[float]] = []
    evaluations = [line for line in lines if names.ROUTE_LOAD.format(route=0) in line]
    while any((name := names.ROUTE_LOAD.format(route=len(loads))) in line for line in evaluations):
        loads.append([number(line.get(name)) or 0.0 for line in evaluations])
    return loads


def routes_by_task(lines: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Take the mean probability of each route at the last evaluation, for each task of a mixture; empty without one.

    Args:
        lines: Of :func:`metrics`.
    """
    by_task: dict[str, list[float]] = {}
    last: dict[str, Any] = next((line for line in reversed(lines) if names.ROUTE_ENTROPY in line), {})
    first = names.ROUTE_OF_TASK.format(route=0, task="")
    for task in (name.removeprefix(first) for name in last if name.startswith(first)):
        routes = (names.ROUTE_OF_TASK.format(route=route, task=task) for route in count())
        by_task[task] = [number(last[name]) or 0.0 for name in takewhile(last.__contains__, routes)]
    return by_task


def masks(run: Run) -> tuple[Masks, str]:
    """Read the masks of a run's adapter.

    Args:
        run: A run; without a directory it has no adapter.

    Returns:
        Site -> what each route lets through, (R, S, L) in [0, 1], as :meth:`mmpt.methods.layout.Layout.shown` gives it;
        and one line where they cannot be read.
    """
    path = Path() if run.directory is None else run.directory / "adapter" / "adapter.safetensors"
    if not path.is_file():
        return {}, ""
    from safetensors import SafetensorError, safe_open

    granularity, temperature = _mask_options(path.with_suffix(".json"))
    by_site: Masks = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if name.startswith("masks."):
                    values = np.asarray(file.get_tensor(name), dtype=np.float64)
                    by_site |= _by_layer(
                        name.removeprefix("masks."), 1 / (1 + np.exp(-values / temperature)), granularity
                    )
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        return {}, f"masks of {run.name} cannot be read ({one_line(error)})"
    if sum(value.size for value in by_site.values()) > LARGEST_MASK:
        return {}, f"masks of {run.name} have more than {LARGEST_MASK} values and are not drawn"
    if not all(np.isfinite(value).all() for value in by_site.values()):
        return {}, f"masks of {run.name} hold values that are not numbers"
    return by_site, ""


def _by_layer(site: str, values: npt.NDArray[np.float64], granularity: str) -> Masks:
    """Masks of one site as (R, S, L); finer ones are averaged over heads, or divided into keys and values."""
    if granularity == "key_value" and values.ndim > 2:
        named = {f"{site}_keys": values[..., 0], f"{site}_values": values[..., 1]}
    else:
        named = {site: values.mean(axis=-1) if granularity == "head" and values.ndim > 2 else values}
    return {name: one if one.ndim == 3 else one[None] for name, one in named.items() if one.ndim in (2, 3)}


def _mask_options(path: Path) -> tuple[str, float]:
    """``mask_granularity`` and ``mask_temperature`` of an adapter, or their defaults."""
    try:
        options = parse_json(read_text(path))["method"]["options"]
        temperature = float(options.get("mask_temperature", 1.0))
        return str(options.get("mask_granularity", "layer")), temperature if temperature > 0 else 1.0
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return "layer", 1.0
