"""The figures of one task on one model."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mmpt.report.columns import interval, spread
from mmpt.report.details import Points, curve, masks, metrics, routes, routes_by_task
from mmpt.report.drawing import INK, SOFT, Drawing, colour, label_points, marker
from mmpt.report.groups import Row
from mmpt.report.published import Figure
from mmpt.report.route_figures import mask_map, route_load, route_map
from mmpt.report.stats import pareto
from mmpt.runs import names
from mmpt.runs.typed_json import number

STRIPS, CURVES, SEEDS, PICTURES, KEYS = 40, 12, 5, 6, 6  # rows, rows, runs a row, rows, settings: drawn for a task
DASHES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dash and dot"}  # of the settings of one method, in turn
LONGEST = 46  # characters of a label
Methods = Mapping[str, int]


def draw(rows: Sequence[Row], methods: Methods, figures: Sequence[Figure] = ()) -> tuple[list[Drawing], list[str]]:
    """Draw all figures of one task, within :func:`mmpt.report.drawing.style`.

    Args:
        rows: Of one task, model and metric, each with a finished run.
        methods: Name -> number of a method, which decides its colour and mark.
        figures: Published figures of the task.

    Returns:
        The figures, and remarks on what they leave out.
    """
    remarks = []
    if len(rows) > STRIPS:
        remarks.append(f"Figures show the best {STRIPS} of {len(rows)} settings.")
    if len(rows) > CURVES or any(len(row.runs) > SEEDS for row in rows):
        remarks.append(f"Curves show at most the best {CURVES} settings and {SEEDS} seeds of each.")
    best = rows[:STRIPS]
    drawn: list[Drawing | None] = [
        scores(best, methods, figures),
        trade_off(best, methods, "parameters.trainable", "trainable parameters"),
        trade_off(best, methods, "timing.train_s", "training seconds"),
    ]
    logs = [(row, [metrics(run) for run in row.runs[:SEEDS]]) for row in best[:CURVES]]
    for name, title, log in (
        (names.VALIDATION_METRIC.format(metric=rows[0].metric), "Validation score over training", False),
        (names.VALIDATION_LOSS, "Validation loss over training", True),
        (names.LOSS, "Training loss", True),
    ):
        lines = [(row, [curve(log_lines, name) for log_lines in several]) for row, several in logs]
        drawn.append(curves(lines, methods, title, name, log))
    loads = ((row, load) for row, several in logs if several and (load := routes(several[0])))
    drawn += [route_load(row, load, methods[row.method]) for row, load in islice(loads, PICTURES)]
    maps = ((row, found) for row, several in logs if several and (found := routes_by_task(several[0])))
    drawn += [route_map(row, found, methods[row.method]) for row, found in islice(maps, PICTURES)]
    for row in best:
        sites, problem = masks(row.runs[0])
        remarks += [problem] if problem else []
        drawn += [mask_map(row, site, values, methods[row.method]) for site, values in sites.items()]
        if sum(one is not None and one.title.startswith("Masks") for one in drawn) >= PICTURES:
            break
    return [one for one in [*drawn, *_effects(rows, methods)] if one is not None], remarks


def scores(rows: Sequence[Row], methods: Methods, figures: Sequence[Figure] = ()) -> Drawing:
    """Score by method: seeds as dots, the mean as a mark, the interval as a bar; published figures below."""
    lines = len(rows) + len(figures)
    drawing, axes = Drawing.start("Score by method", 0.6 + 0.34 * lines, left=0.15)
    values = [score for row in rows for score in row.scores] + [float(figure.score) for figure in figures]
    low, high = min(values) - 0.2, max(values) + 0.2
    majority = rows[0].median(lambda run: None if run.result is None else run.result.baseline("majority"))
    for y, row in enumerate(rows):
        _strip(drawing, axes, y, row, methods[row.method], (low, high))
    for y, figure in enumerate(figures, start=len(rows)):
        axes.plot(float(figure.score), y, "D", color=SOFT, markerfacecolor="none")
        _row_label(axes, y, f"{figure.method}, {figure.backbone} †", SOFT)
    drawing.caption = "Small dots are seeds, the large mark is their mean, the bar its 95 % interval."
    left, right = axes.get_xlim()
    if majority is not None and left <= majority <= right:
        at = np.arange(lines)
        axes.vlines([majority] * lines, at - 0.2, at + 0.2, color=SOFT, linestyle="--", linewidth=1)
        drawing.caption += " The dashed line is the majority baseline."
    if figures:
        drawing.caption += " Hollow diamonds (†) are published figures, not run here."
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(ylim=(lines - 0.6, -0.8), yticks=[], xlabel=f"test {rows[0].metric}")
    drawing.description = "; ".join(f"{row.label}: {spread(row)}" for row in rows[:12])
    return drawing


def _strip(drawing: Drawing, axes: Any, y: int, row: Row, index: int, ends: tuple[float, float]) -> None:
    summary = row.summary
    assert summary is not None
    shown = (
        f"{row.label}: {spread(row)}, {summary.n} seed{'s' * (summary.n > 1)}, {interval(summary.low, summary.high)}"
    )
    drawing.tag(_row_label(axes, y, row.label, INK), index)
    if summary.low is not None and summary.high is not None:
        bar = (max(summary.low, ends[0]), min(summary.high, ends[1]))
        drawing.tag(axes.plot(bar, (y, y), color=colour(index), linewidth=2, alpha=0.7)[0], index, shown)
    for run in row.runs:
        dot = axes.plot(run.score(), y, "o", color=colour(index), markersize=3, alpha=0.45)
        drawing.tag(dot[0], index, f"{row.label}, seed {run.seed}: {run.score():.3f}")
    drawing.tag(axes.plot(summary.mean, y, marker(index), color=colour(index))[0], index, shown)


def _row_label(axes: Any, y: int, text: str, ink: str) -> Any:
    """A name above its line of marks."""
    return axes.text(0, y - 0.42, _cut(text), color=ink, va="center", transform=axes.get_yaxis_transform())


def trade_off(rows: Sequence[Row], methods: Methods, cost: str, name: str) -> Drawing | None:
    """Score against a cost with the Pareto front; None where no run has the cost."""
    known = [(row, value) for row in rows if row.summary and (value := row.median(cost)) is not None]
    if not known:
        return None
    drawing, axes = Drawing.start(f"Score against {name}")
    points = [(value, row.summary.mean) for row, value in known if row.summary]
    boxes = [_point(drawing, axes, row, methods, value, name) for row, value in known]
    front = pareto(points)
    axes.step(*zip(*(points[i] for i in front), strict=True), where="post", color=SOFT, linestyle=":", zorder=1)
    for i in front:
        ring = axes.plot(*points[i], "o", color=INK, markerfacecolor="none", markersize=10, markeredgewidth=1)
        drawing.tag(ring[0], methods[known[i][0].method])
    _number_axis(axes, "x", [value for value, _ in points], log=True)
    axes.set(xlabel=name, ylabel=f"test {rows[0].metric}")
    axes.margins(x=0.1, y=0.12)
    # nor do labels cross the front's line
    boxes += [(points[i][0], points[i][1], points[j][0], points[i][1]) for i, j in pairwise(front)]
    named = [(*points[i], _cut(known[i][0].label), methods[known[i][0].method]) for i in front]
    label_points(drawing, axes, named, boxes)
    drawing.description = "Pareto front: " + "; ".join(
        f"{known[i][0].label}: {_compact(points[i][0])}, {points[i][1]:.3f}" for i in front
    )
    drawing.caption = "Ringed, and named where there is room: the Pareto front, where no other row costs less and "
    drawing.caption += "scores more. Bars: ± sd over seeds."
    return drawing


def _point(
    drawing: Drawing, axes: Any, row: Row, methods: Methods, x: float, name: str
) -> tuple[float, float, float, float]:
    """Draw a row's mean with its standard deviation; returns the box of both."""
    assert row.summary is not None
    index, mean, sd = methods[row.method], row.summary.mean, row.summary.sd or 0.0
    drawing.legend[row.method] = index
    tip = f"{row.label}: {spread(row)} at {_compact(x)} {name}"
    drawing.tag(axes.plot((x, x), (mean - sd, mean + sd), color=colour(index), linewidth=1.2, alpha=0.7)[0], index)
    drawing.tag(axes.plot(x, mean, marker(index), color=colour(index))[0], index, tip)
    return x, mean - sd, x, mean + sd


def curves(
    lines: Sequence[tuple[Row, list[Points]]], methods: Methods, title: str, name: str, log: bool = False
) -> Drawing | None:
    """A metric over training: a thin line a seed, a thick one for their mean; None without a point."""
    lines = [(row, full) for row, several in lines if (full := [points for points in several if points])]
    if not lines:
        return None
    drawing, axes = Drawing.start(title)
    drawn: Counter[str] = Counter()
    for row, several in lines:
        index, dash = methods[row.method], list(DASHES)[drawn[row.method] % len(DASHES)]
        drawn[row.method] += 1
        drawing.legend[row.method] = index
        for points in several:
            thin = axes.plot(*zip(*points, strict=True), color=colour(index), linewidth=0.8, alpha=0.4)
            drawing.tag(thin[0], index, f"{row.label}, one seed, ends at {points[-1][1]:.3g}")
        mean = _mean(several)
        style = {"color": colour(index), "linestyle": dash, "marker": marker(index), "markersize": 3, "linewidth": 1.5}
        tip = f"{row.label}, ends at {mean[-1][1]:.3g}"
        drawing.tag(axes.plot(*zip(*mean, strict=True), **style)[0], index, tip)
    if log:
        _number_axis(axes, "y", [value for _, several in lines for points in several for _, value in points], log=True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="optimizer step", ylabel=name)
    drawing.description = "; ".join(f"{row.label} ends at {_mean(several)[-1][1]:.3g}" for row, several in lines)
    drawing.caption = "Thin lines are seeds, thick ones their mean."
    if max(drawn.values()) > 1:
        drawing.caption += f" Settings of a method, by rank: {', '.join(DASHES.values())}; pointing at one names it."
    return drawing


def _mean(lines: Sequence[Points]) -> Points:
    """Mean over seeds at the steps that all of them have; the first line where they have none in common."""
    tables = [dict(points) for points in lines]
    common = sorted(set.intersection(*(set(table) for table in tables)))
    return [(step, statistics.fmean(table[step] for table in tables)) for step in common] or list(lines[0])


def _effects(rows: Sequence[Row], methods: Methods) -> list[Drawing]:
    """One figure for each method and each of its settings that differ."""
    drawn = []
    for method in methods:
        mine = [row for row in rows if row.method == method]
        keys = sorted({key for row in mine for key in row.settings})
        for key in keys[:KEYS] if len(mine) > 1 else []:
            values = [(row, value) for row in mine if (value := row.flat.get(key)) is not None]
            if len({str(value) for _, value in values}) > 1:
                drawn.append(effect(values, key, methods))
    return drawn


def effect(values: Sequence[tuple[Row, Any]], key: str, methods: Methods) -> Drawing:
    """Score against one setting of a method."""
    method, metric = values[0][0].method, values[0][0].metric
    drawing, axes = Drawing.start(f"Effect of {key} on {method}", 2.0)
    numeric = all(number(value) is not None for _, value in values)
    words = sorted({str(value) for _, value in values})
    positions = [float(value) if numeric else float(words.index(str(value))) for _, value in values]
    for (row, _), x in zip(values, positions, strict=True):
        _point(drawing, axes, row, methods, x, key)
    if numeric:
        _number_axis(axes, "x", positions, log=min(positions) > 0 and max(positions) / min(positions) >= 10)
    else:
        axes.set_xticks(range(len(words)), [_cut(word) for word in words])
    axes.set(xlabel=key, ylabel=f"test {metric}")
    drawing.description = "; ".join(f"{value}: {spread(row)}" for row, value in values[:12])
    drawing.caption = "One mark a setting; bars: ± sd over seeds."
    return drawing


def _number_axis(axes: Any, which: str, values: Sequence[float], log: bool) -> None:
    """Ticks as 12k and 3.4M; logarithmic where asked for, over positive values that differ enough."""
    axis = getattr(axes, f"{which}axis")
    if log and min(values) > 0 and max(values) / min(values) >= 3:
        getattr(axes, f"set_{which}scale")("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if max(values) / min(values) < 1000 else (1.0,)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _compact(value)))


def _compact(value: float) -> str:
    """A number as 12k and 3.4M instead of many digits."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _cut(text: str) -> str:
    """Leave out the middle of a long name: methods begin it, values end it."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2 - 1]}…{text[-LONGEST // 2 :]}"
