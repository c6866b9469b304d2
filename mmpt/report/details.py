"""What a page shows beyond results: metrics over training, and the masks of adapters. Read only where asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.errors import RunError
from mmpt.report.run import Run, number
from mmpt.utils.files import read_jsonl
from mmpt.utils.untrusted import one_line, parse_json, read_text

Points = list[tuple[float, float]]
LARGEST_MASK = 20_000  # values of one adapter that are drawn


def metrics(run: Run) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl.

    Args:
        run: A run; without a directory it has no metrics.

    Returns:
        One mapping a line; what can't be read ends the list.
    """
    if run.place is None:
        return []
    lines: list[dict[str, Any]] = []
    try:
        for line in read_jsonl(run.place / "metrics.jsonl"):
            if isinstance(line, dict):
                lines.append(line)
    except (OSError, RunError):
        pass  # a curve up to the damaged line, or none
    return lines


def curve(lines: list[dict[str, Any]], name: str) -> Points:
    """Take one metric over steps.

    Args:
        lines: Of :func:`metrics`.
        name: A key such as ``validation/loss``.

    Returns:
        (step, value); what is not a number is left out.
    """
    points = [(number(line, "step"), number(line, name)) for line in lines]
    return [(step, value) for step, value in points if step is not None and value is not None]


def routes(lines: list[dict[str, Any]]) -> list[Points]:
    """Take the share of validation examples that each route has, one value an evaluation.

    Args:
        lines: Of :func:`metrics`.

    Returns:
        One list of (evaluation, share) a route; empty for a method without routes.
    """
    loads: list[Points] = []
    told = [line for line in lines if "routes/load_0" in line]
    while any(f"routes/load_{len(loads)}" in line for line in told):
        name = f"routes/load_{len(loads)}"
        values = [(float(count), number(line, name)) for count, line in enumerate(told, start=1)]
        loads.append([(count, value) for count, value in values if value is not None])
    return loads


def masks(run: Run) -> tuple[dict[str, npt.NDArray[np.float64]], str]:
    """Read the masks of a run's adapter.

    Args:
        run: A run; without a directory it has no adapter.

    Returns:
        Site to what each route lets through, (R, S, L) in [0, 1], as :meth:`mmpt.methods.layout.Layout.shown` gives it;
        and one line where they can't be read.
    """
    if run.place is None:
        return {}, ""
    path = run.place / "adapter" / "adapter.safetensors"
    if not path.is_file():
        return {}, ""
    granularity, temperature = _mask_options(path.with_suffix(".json"))
    from safetensors import SafetensorError, safe_open

    found: dict[str, npt.NDArray[np.float64]] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if name.startswith("masks."):
                    values = np.asarray(file.get_tensor(name), dtype=np.float64)
                    found[name.removeprefix("masks.")] = 1 / (1 + np.exp(-values / temperature))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        return {}, f"masks of {run.name} can't be read ({one_line(error)})"
    shaped: dict[str, npt.NDArray[np.float64]] = {}
    for site, value in found.items():
        if granularity == "key_value" and value.ndim > 2:
            shaped |= {f"{site}_keys": value[..., 0], f"{site}_values": value[..., 1]}
        else:
            shaped[site] = value.mean(axis=-1) if granularity == "head" and value.ndim > 2 else value
    shaped = {site: value if value.ndim == 3 else value[None] for site, value in shaped.items() if value.ndim in (2, 3)}
    return _drawable(shaped, run)


def _mask_options(path: Path) -> tuple[str, float]:
    """``mask_granularity`` and ``mask_temperature`` of an adapter, or their defaults."""
    try:
        options = parse_json(read_text(path))["method"]["options"]
        temperature = float(options.get("mask_temperature", 1.0))
        return str(options.get("mask_granularity", "layer")), temperature if temperature > 0 else 1.0
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return "layer", 1.0


def _drawable(found: Mapping[str, npt.NDArray[np.float64]], run: Run) -> tuple[dict[str, Any], str]:
    if sum(value.size for value in found.values()) > LARGEST_MASK:
        return {}, f"masks of {run.name} have more than {LARGEST_MASK} values and aren't drawn"
    if not all(np.isfinite(value).all() for value in found.values()):
        return {}, f"masks of {run.name} hold values that are no numbers"
    return dict(found), ""
