"""Figures of routed methods: the load of routes, routes by task, and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.ticker import MaxNLocator

from mmpt.report.drawing import HEAT, INK, SOFT, WIDTH, Drawing, colour
from mmpt.report.groups import Row


def route_load(row: Row, loads: Sequence[Sequence[float]]) -> Drawing:
    """Share of validation examples by route and evaluation, stacked."""
    drawing = Drawing.start(f"Route load: {row.label}, seed {row.seeds[0]}", 2.0)
    axes, counts = drawing.axes, range(1, len(loads[0]) + 1)
    shades = [colour(route) for route in range(len(loads))]
    if len(counts) > 1:
        bands = axes.stackplot(counts, *loads, colors=shades, alpha=0.75)
    else:
        shares = [load[0] for load in loads]
        bands = axes.bar([1] * len(loads), shares, 0.5, np.cumsum([0.0, *shares[:-1]]), color=shades, alpha=0.75)
    for route, band in enumerate(bands):
        drawing.tag(band, row.index, f"route {route}: {loads[route][-1]:.0%} at the end")
    axes.set_xticks(counts[:: -(-len(counts) // 10)])
    axes.set(xlabel="evaluation (one an epoch by default)", ylabel="share of examples", ylim=(0, 1))
    at_end = ", ".join(f"route {route} {load[-1]:.0%}" for route, load in enumerate(loads))
    drawing.description = f"At the end: {at_end}"
    drawing.caption = f"Examples by their likeliest route, route 0 at the bottom. At the end: {at_end}. "
    drawing.caption += "Routes of other seeds have other numbers."
    return drawing


def route_map(row: Row, by_task: Mapping[str, Sequence[float]]) -> Drawing:
    """Mean route probabilities of the tasks of a mixture: tasks down, routes across."""
    title = f"Routes by task: {row.label}, seed {row.seeds[0]}"
    drawing = Drawing.start(title, 0.6 + 0.3 * len(by_task), left=0.9)
    axes, values = drawing.axes, np.array(list(by_task.values()))
    axes.grid(False)
    drawing.tag(axes.pcolormesh(values, cmap=_shades(), vmin=0, vmax=1, edgecolors="none"), row.index)
    for (y, x), value in np.ndenumerate(values):
        axes.text(x + 0.5, y + 0.5, f"{value:.2f}", color=INK, ha="center", va="center")
    axes.set_xticks(np.arange(values.shape[1]) + 0.5, [str(route) for route in range(values.shape[1])])
    axes.set_yticks(np.arange(len(values)) + 0.5, list(by_task))
    axes.set_xlabel("route")
    axes.invert_yaxis()
    said = (f"{task}: {' '.join(f'{share:.2f}' for share in shares)}" for task, shares in by_task.items())
    drawing.description = "; ".join(said)
    drawing.caption = "Mean probability of each route over a task's validation examples, at the last evaluation."
    return drawing


def _shades() -> ListedColormap:
    return ListedColormap([(*to_rgb(HEAT), 0.04 + 0.96 * level / 255) for level in range(256)])


def mask_map(row: Row, site: str, values: npt.NDArray[Any]) -> Drawing:
    """What each route's mask lets through: a panel a route, tokens down, layers across; ``values: (R, S, L)``."""
    routes, tokens, layers = values.shape
    across = max(1, min(routes, int((WIDTH - 0.5) / (0.3 + 0.06 * layers))))
    down = -(-routes // across)
    height = 0.2 + down * (0.5 + min(2.0, 0.12 * tokens))
    panels = {"nrows": down, "ncols": across, "squeeze": False, "sharex": True, "sharey": True}
    drawing = Drawing.start(f"Masks at {site}: {row.label}, seed {row.runs[0].seed}", height, **panels)
    for route, panel in enumerate(drawing.axes.flat):
        panel.grid(False)
        if route >= routes:
            panel.set_axis_off()
            continue
        edges = np.arange(layers + 1) - 0.5, np.arange(tokens + 1) - 0.5
        mesh = panel.pcolormesh(*edges, values[route], cmap=_shades(), vmin=0, vmax=1)
        drawing.tag(mesh, row.index, f"route {route}, mean {float(values[route].mean()):.2f}")
        panel.set(title=f"route {route}", xlim=(-0.5, layers - 0.5), ylim=(tokens - 0.5, -0.5))
        panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    drawing.canvas.supxlabel("layer", fontsize=8, color=SOFT, y=0.05 / height)
    drawing.canvas.supylabel("token", fontsize=8, color=SOFT, x=0.02)
    drawing.canvas.subplots_adjust(top=1 - 0.25 / height, hspace=0.35)
    means = (f"route {route} {float(values[route].mean()):.2f}" for route in range(routes))
    drawing.description = f"Mean: {', '.join(means)}"
    drawing.caption = "Sigmoid of the masks: full colour lets a prefix token through at a layer, faint shuts it out."
    return drawing
