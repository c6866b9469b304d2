"""Pictures of what a method learnt: the load of its routes over training, and its masks as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from mmpt.report.details import Points
from mmpt.report.groups import Row
from mmpt.report.plots import COLOURS, Plot
from mmpt.report.svg import BOTTOM, LEFT, TOP, WIDTH, Frame, Scale, picture, tag


def route_load(row: Row, seed: int | None, loads: Sequence[Points], index: int) -> Plot:
    """Share of validation examples by route and evaluation, stacked."""
    height, right = 220.0, 70.0
    counts = [count for count, _ in loads[0]]
    x = Scale(min(counts), max(counts) if len(counts) > 1 else min(counts) + 1, LEFT, WIDTH - right)
    frame = Frame(x, Scale(0, 1, height - BOTTOM, TOP), height)
    frame.axes("evaluation (one an epoch by default)", "share of examples", x_at=_some(counts))
    base = [0.0] * len(counts)
    bands = []
    for route, load in enumerate(loads):
        top = [low + dict(load).get(count, 0.0) for low, count in zip(base, counts, strict=True)]
        upper = [(x(count), frame.y(value)) for count, value in zip(counts, top, strict=True)]
        lower = [(x(count), frame.y(value)) for count, value in zip(counts, base, strict=True)]
        if len(counts) == 1:  # one evaluation: a bar of its own
            upper, lower = [*upper, (WIDTH - right, upper[0][1])], [*lower, (WIDTH - right, lower[0][1])]
        outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*upper, *reversed(lower)])
        share = top[-1] - base[-1]
        tip = tag("title", text=f"route {route}: {share:.0%} at the end")
        bands.append(tag("polygon", tip, points=outline, class_=f"band c{route % COLOURS}"))
        if share > 0.04:
            y = frame.y(base[-1] + share / 2) + 4
            bands.append(tag("text", text=f"route {route}", class_="label", x=WIDTH - right + 6, y=y))
        base = top
    title = f"Route load: {row.label}, seed {seed}"
    told = ", ".join(f"route {route} {load[-1][1]:.0%}" for route, load in enumerate(loads) if load)
    svg = picture(title, f"At the end: {told}", [tag("g", *frame.marks, *bands, class_=f"m{index}")], height)
    return Plot(title, svg, "Which route an example's likeliest one is. Routes of other seeds have other numbers.")


def _some(values: Sequence[float], most: int = 10) -> list[float]:
    return list(values[:: -(-len(values) // most)])


def mask_map(row: Row, seed: int | None, site: str, masks: npt.NDArray[Any], index: int) -> Plot:
    """What each route's mask lets through: a panel a route, tokens down, layers across; ``masks: (R, S, L)``."""
    routes, tokens, layers = masks.shape
    gap, left, top = 22.0, 46.0, 34.0
    cell = max(4.0, min(26.0, (WIDTH - left - gap * routes) / (routes * layers)))
    tall = max(6.0, min(18.0, 320.0 / tokens))
    width = max(WIDTH, left + routes * (layers * cell + gap))
    height = top + tokens * tall + 40
    parts = []
    for route in range(routes):
        x0 = left + route * (layers * cell + gap)
        parts.append(tag("text", text=f"route {route}", class_="label", x=x0, y=top - 10))
        for token in range(tokens):
            for layer in range(layers):
                value = float(masks[route, token, layer])
                tip = tag("title", text=f"route {route}, token {token}, layer {layer}: {value:.2f}")
                box = {"x": x0 + layer * cell, "y": top + token * tall, "width": cell - 1, "height": tall - 1}
                parts.append(tag("rect", tip, class_="heat", fill_opacity=f"{0.04 + 0.96 * value:.3f}", **box))
    parts.append(tag("text", text="token", class_="axis", x=left - 8, y=top + 10, text_anchor="end"))
    parts.append(tag("text", text="layer →", class_="axis", x=left, y=top + tokens * tall + 18))
    parts += _key(width, top + tokens * tall + 10)
    title = f"Masks at {site}: {row.label}, seed {seed}"
    means = ", ".join(f"route {route} {float(masks[route].mean()):.2f}" for route in range(routes))
    svg = picture(title, f"Mean: {means}", [tag("g", *parts, class_=f"m{index}")], height, width)
    return Plot(
        title, svg, "Sigmoid of the masks: full colour lets a prefix token through at a layer, faint shuts it out."
    )


def _key(width: float, y: float) -> list[str]:
    boxes = [
        tag(
            "rect",
            class_="heat",
            fill_opacity=f"{0.04 + 0.96 * step / 10:.3f}",
            x=width - 180 + 12 * step,
            y=y,
            width=12,
            height=10,
        )
        for step in range(11)
    ]
    ends = [(width - 186, "0", "end"), (width - 42, "1", "start")]
    return boxes + [tag("text", text=text, class_="tick", x=x, y=y + 9, text_anchor=anchor) for x, text, anchor in ends]
