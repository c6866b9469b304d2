"""The figures of one task on one model."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mmpt.report.columns import interval, spread
from mmpt.report.details import Lines, Points, curve, masks, metrics, routes, routes_by_task
from mmpt.report.drawing import INK, SOFT, Drawing, label_points, marker
from mmpt.report.groups import Row, divide
from mmpt.report.published import Figure
from mmpt.report.route_figures import mask_map, route_load, route_map
from mmpt.report.stats import pareto
from mmpt.runs import names
from mmpt.runs.typed_json import number

STRIPS, CURVES, SEEDS, PICTURES, KEYS = 40, 12, 5, 6, 6  # rows, rows, runs a row, rows, settings: drawn for a task
DASHES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dash and dot"}  # of the settings of one method, in turn
LONGEST = 46  # characters of a label
Box = tuple[float, float, float, float]
Logs = Sequence[tuple[Row, list[Lines]]]  # of each row, the metrics of some runs


def draw(block: Sequence[Row], figures: Sequence[Figure] = ()) -> tuple[list[Drawing], list[str]]:
    """Draw all figures of one task and model, within :func:`mmpt.report.drawing.style`.

    Args:
        block: Its rows; those without a finished run, or with another metric than the first, are left out.
        figures: Published figures of any task.

    Returns:
        The figures, and remarks on what they leave out.
    """
    rows = [row for row in block if row.summary is not None and row.metric == block[0].metric]
    if not rows:
        return [], []
    best, remarks = rows[:STRIPS], []
    if len(rows) > STRIPS:
        remarks.append(f"Figures show the best {STRIPS} of {len(rows)} settings.")
    if len(rows) > CURVES or any(len(row.runs) > SEEDS for row in rows):
        remarks.append(f"Curves show at most the best {CURVES} settings and {SEEDS} seeds of each.")
    logs = [(row, [metrics(run) for run in row.runs[:SEEDS]]) for row in best[:CURVES]]
    score = names.VALIDATION_METRIC.format(metric=rows[0].metric)
    drawn: list[Drawing | None] = [
        scores(best, [figure for figure in figures if figure.task == rows[0].task]),
        trade_off(best, "parameters.trainable", "trainable parameters"),
        trade_off(best, "timing.train_s", "training seconds"),
        curves(logs, "Validation score over training", score),
        curves(logs, "Validation loss over training", names.VALIDATION_LOSS, log=True),
        curves(logs, "Training loss", names.LOSS, log=True),
    ]
    firsts = [(row, several[0]) for row, several in logs]
    loads = ((row, load) for row, lines in firsts if (load := routes(lines)))
    drawn += [route_load(row, load) for row, load in islice(loads, PICTURES)]
    maps = ((row, found) for row, lines in firsts if (found := routes_by_task(lines)))
    drawn += [route_map(row, found) for row, found in islice(maps, PICTURES)]
    pictures: list[Drawing] = []
    for row in best:
        if len(pictures) < PICTURES:
            sites, problem = masks(row.runs[0])
            remarks += [problem] if problem else []
            pictures += [mask_map(row, site, values) for site, values in sites.items()]
    return [one for one in [*drawn, *pictures, *_effects(rows)] if one is not None], remarks


def scores(rows: Sequence[Row], figures: Sequence[Figure] = ()) -> Drawing:
    """Score by method: seeds as dots, the mean as a mark, the interval as a bar; published figures below."""
    lines = len(rows) + len(figures)
    drawing = Drawing.start("Score by method", 0.6 + 0.34 * lines, left=0.15)
    axes, (_, high) = drawing.axes, rows[0].ends or (0.0, 1.0)
    for y, row in enumerate(rows):
        _strip(drawing, y, row)
    for y, figure in enumerate(figures, start=len(rows)):  # their scores are shares
        axes.plot(high * float(figure.score), y, "D", color=SOFT, markerfacecolor="none")
        _row_label(axes, y, f"{figure.method}, {figure.backbone} †", SOFT)
    drawing.caption = "Small dots are seeds, the large mark is their mean, the bar its 95 % interval."
    majority = rows[0].median(lambda run: None if run.result is None else run.result.baseline("majority"))
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


def _strip(drawing: Drawing, y: int, row: Row) -> None:
    """One row's label, interval, seeds and mean."""
    summary, index = row.summary, row.index
    assert summary is not None
    seeds = f"{summary.n} seed{'s' * (summary.n > 1)}"
    tip = f"{row.label}: {spread(row)}, {seeds}, {interval(summary)}"
    drawing.tag(_row_label(drawing.axes, y, row.label, INK), index)
    if summary.low is not None and summary.high is not None:
        drawing.plot(index, tip, (summary.low, summary.high), (y, y), linewidth=2, alpha=0.7)
    for run in row.runs:
        one = f"{row.label}, seed {run.seed}: {run.score():.3f}"
        drawing.plot(index, one, run.score(), y, "o", markersize=3, alpha=0.45)
    drawing.plot(index, tip, summary.mean, y, marker(index))


def _row_label(axes: Any, y: int, text: str, ink: str) -> Any:
    """A name above its line of marks."""
    return axes.text(0, y - 0.42, _cut(text), color=ink, va="center", transform=axes.get_yaxis_transform())


def trade_off(rows: Sequence[Row], cost: str, name: str) -> Drawing | None:
    """Score against a cost with the Pareto front; None where no run has the cost."""
    known = [(row, value) for row in rows if (value := row.median(cost)) is not None]
    if not known:
        return None
    drawing = Drawing.start(f"Score against {name}")
    boxes = [_point(drawing, row, value, name) for row, value in known]
    points = [(value, row.summary.mean) for row, value in known if row.summary]
    front = pareto(points)
    drawing.axes.step(*zip(*(points[i] for i in front), strict=True), where="post", color=SOFT, linestyle=":", zorder=1)
    ring = {"color": INK, "markerfacecolor": "none", "markersize": 10, "markeredgewidth": 1}
    for i in front:
        drawing.plot(known[i][0].index, "", *points[i], "o", **ring)
    _number_axis(drawing.axes, "x", [value for value, _ in points], log=True)
    drawing.axes.set(xlabel=name, ylabel=f"test {rows[0].metric}")
    drawing.axes.margins(x=0.1, y=0.12)
    # nor do labels cross the front's line
    boxes += [(points[i][0], points[i][1], points[j][0], points[i][1]) for i, j in pairwise(front)]
    label_points(drawing, [(*points[i], _cut(known[i][0].label), known[i][0].index) for i in front], boxes)
    named = (f"{known[i][0].label}: {_compact(points[i][0])}, {points[i][1]:.3f}" for i in front)
    drawing.description = f"Pareto front: {'; '.join(named)}"
    drawing.caption = "Ringed, and named where there is room: the Pareto front, where no other row costs less and "
    drawing.caption += "scores more. Bars: ± sd over seeds."
    return drawing


def _point(drawing: Drawing, row: Row, x: float, name: str) -> Box:
    """Draw a row's mean with its standard deviation; returns the box of both."""
    assert row.summary is not None
    index, mean, sd = row.index, row.summary.mean, row.summary.sd or 0.0
    drawing.legend[row.method] = index
    drawing.plot(index, "", (x, x), (mean - sd, mean + sd), linewidth=1.2, alpha=0.7)
    drawing.plot(index, f"{row.label}: {spread(row)} at {_compact(x)} {name}", x, mean, marker(index))
    return x, mean - sd, x, mean + sd


def curves(logs: Logs, title: str, name: str, log: bool = False) -> Drawing | None:
    """A metric over training: a thin line a seed, a thick one for their mean; None without a point."""
    lines = [(row, [points for one in several if (points := curve(one, name))]) for row, several in logs]
    lines = [(row, several) for row, several in lines if several]
    if not lines:
        return None
    drawing = Drawing.start(title)
    drawn, ends = Counter[str](), []
    for row, several in lines:
        index, dash = row.index, list(DASHES)[drawn[row.method] % len(DASHES)]
        drawn[row.method] += 1
        drawing.legend[row.method] = index
        for points in several:
            tip = f"{row.label}, one seed, ends at {points[-1][1]:.3g}"
            drawing.plot(index, tip, *zip(*points, strict=True), linewidth=0.8, alpha=0.4)
        mean = _mean(several)
        ends.append(f"ends at {mean[-1][1]:.3g}")
        style = {"linestyle": dash, "marker": marker(index), "markersize": 3, "linewidth": 1.5}
        drawing.plot(index, f"{row.label}, {ends[-1]}", *zip(*mean, strict=True), **style)
    if log:
        values = [value for _, several in lines for points in several for _, value in points]
        _number_axis(drawing.axes, "y", values, log=True)
    drawing.axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    drawing.axes.set(xlabel="optimizer step", ylabel=name)
    drawing.description = "; ".join(f"{row.label} {end}" for (row, _), end in zip(lines, ends, strict=True))
    drawing.caption = "Thin lines are seeds, thick ones their mean."
    if max(drawn.values()) > 1:
        drawing.caption += f" Settings of a method, by rank: {', '.join(DASHES.values())}; pointing at one names it."
    return drawing


def _mean(lines: Sequence[Points]) -> Points:
    """Mean over seeds at the steps that all of them have; the first line where they have none in common."""
    tables = [dict(points) for points in lines]
    common = sorted(set.intersection(*(set(table) for table in tables)))
    return [(step, statistics.fmean(table[step] for table in tables)) for step in common] or list(lines[0])


def _effects(rows: Sequence[Row]) -> list[Drawing]:
    """One figure for each method and each of its settings that differ."""
    drawn = []
    for _, mine in sorted(divide(rows, lambda row: row.method).items()):
        keys = sorted({key for row in mine for key in row.settings})
        for key in keys[:KEYS] if len(mine) > 1 else []:
            values = [(row, value) for row in mine if (value := row.flat.get(key)) is not None]
            if len({str(value) for _, value in values}) > 1:
                drawn.append(effect(values, key))
    return drawn


def effect(values: Sequence[tuple[Row, Any]], key: str) -> Drawing:
    """Score against one setting of a method."""
    drawing = Drawing.start(f"Effect of {key} on {values[0][0].method}", 2.0)
    numeric = all(number(value) is not None for _, value in values)
    words = sorted({str(value) for _, value in values})
    positions = [float(value) if numeric else float(words.index(str(value))) for _, value in values]
    for (row, _), x in zip(values, positions, strict=True):
        _point(drawing, row, x, key)
    if numeric:
        _number_axis(drawing.axes, "x", positions, log=min(positions) > 0 and max(positions) / min(positions) >= 10)
    else:
        drawing.axes.set_xticks(range(len(words)), [_cut(word) for word in words])
    drawing.axes.set(xlabel=key, ylabel=f"test {values[0][0].metric}")
    drawing.description = "; ".join(f"{value}: {spread(row)}" for row, value in values[:12])
    drawing.caption = "One mark a setting; bars: ± sd over seeds."
    return drawing


def _number_axis(axes: Any, which: str, values: Sequence[float], log: bool) -> None:
    """Ticks as 12k and 3.4M; logarithmic where asked for, over positive values that differ enough."""
    axis, times = getattr(axes, f"{which}axis"), max(values) / min(values) if min(values) > 0 else 0
    if log and times >= 3:
        getattr(axes, f"set_{which}scale")("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if times < 1000 else (1.0,)))
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
