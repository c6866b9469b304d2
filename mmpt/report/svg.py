"""Inline SVG: escaped tags, scales with round ticks, and a frame with axes."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640.0, 64.0, 18.0, 14.0, 44.0
SHAPES = ("circle", "square", "diamond", "triangle", "cross", "star")
_ARM = [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)]  # half of a cross
CORNERS = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
    "triangle": [(0, -1.25), (1.2, 0.95), (-1.2, 0.95)],
    "cross": [*_ARM, *((-x, -y) for x, y in _ARM)],
    "star": [
        (radius * math.sin(k * math.pi / 5), -radius * math.cos(k * math.pi / 5))
        for k in range(10)
        for radius in [1.4 if k % 2 == 0 else 0.6]
    ],
}


def tag(name: str, *inside: str, text: object = None, **attributes: object) -> str:
    """Write one element; text and attributes are escaped, ``inside`` is markup already.

    Args:
        name: Of the element.
        inside: Markup of children.
        text: A text to come first.
        attributes: ``class_`` and ``data_x`` stand for ``class`` and ``data-x``; a number is rounded.
    """
    words = [name]
    for key, value in attributes.items():
        shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
        words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(shown)}"')
    body = ("" if text is None else html.escape(str(text))) + "".join(inside)
    return f"<{' '.join(words)}>{body}</{name}>"


def picture(title: str, description: str, body: Sequence[str], height: float, width: float = WIDTH) -> str:
    """Wrap marks as a picture with a title and a description for those who can't see it."""
    return tag(
        "svg",
        tag("title", text=title),
        tag("desc", text=description),
        *body,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=f"{title}. {description}",
    )


@dataclass(frozen=True)
class Scale:
    """Values to places along an axis."""

    low: float
    high: float
    start: float  # place of low
    end: float  # place of high
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, log: bool = False) -> Scale:
        """Span values with a margin.

        Args:
            values: At least one.
            start: Place of the low end.
            end: Place of the high end.
            log: Logarithmic where all values are positive.
        """
        log = log and min(values) > 0
        low, high = (math.log10(min(values)), math.log10(max(values))) if log else (min(values), max(values))
        margin = 0.06 * (high - low) or (0.3 if log else max(0.05 * abs(high), 0.05))
        return cls(low - margin, high + margin, start, end, log)

    def __call__(self, value: float) -> float:
        """Place of a value."""
        share = ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside: powers of ten with 2 and 5 where logarithmic, else about five even steps."""
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        if self.log:
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            fine = (1, 2, 5) if self.high - self.low < 3.2 else (1,)
            found = [factor * 10.0**decade for decade in decades for factor in fine]
            found = [value for value in found if low <= value <= high]
            if len(found) > 2:
                return found
        rough = (high - low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough)
        return [count * step for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


@dataclass
class Frame:
    """A plot under construction: two scales, grid and axes, and marks on top."""

    x: Scale
    y: Scale
    height: float
    width: float = WIDTH
    marks: list[str] = field(default_factory=list)

    def axes(self, x_name: str, y_name: str, *, x_at: Sequence[float] | None = None, y_ticks: bool = True) -> None:
        """Draw grid lines, tick labels and names; ``x_at`` holds ticks in place of round ones."""
        left, right = min(self.x.start, self.x.end), max(self.x.start, self.x.end)
        top, bottom = min(self.y.start, self.y.end), max(self.y.start, self.y.end)
        for value in self.x.ticks() if x_at is None else x_at:
            at = self.x(value)
            self.marks.append(tag("line", class_="grid", x1=at, x2=at, y1=top, y2=bottom))
            self.marks.append(
                tag("text", text=compact(value), class_="tick", x=at, y=bottom + 16, text_anchor="middle")
            )
        for value in self.y.ticks() if y_ticks else []:
            at = self.y(value)
            self.marks.append(tag("line", class_="grid", x1=left, x2=right, y1=at, y2=at))
            self.marks.append(tag("text", text=compact(value), class_="tick", x=left - 8, y=at + 4, text_anchor="end"))
        middle = (left + right) / 2
        self.marks.append(tag("text", text=x_name, class_="axis", x=middle, y=bottom + 36, text_anchor="middle"))
        if y_name:
            turn = f"rotate(-90 14 {(top + bottom) / 2:.0f})"
            at = (top + bottom) / 2
            self.marks.append(tag("text", text=y_name, class_="axis", x=14, y=at, text_anchor="middle", transform=turn))


def marker(shape: str, x: float, y: float, size: float, title: str, **attributes: object) -> str:
    """Draw one mark with a tooltip."""
    tip = tag("title", text=title)
    if shape == "circle":
        return tag("circle", tip, cx=x, cy=y, r=size, **attributes)
    return tag("path", tip, d=path(shape, x, y, size), **attributes)


def path(shape: str, x: float, y: float, s: float) -> str:
    """Outline of a mark around a place."""
    return "M" + "L".join(f"{x + s * dx:.1f} {y + s * dy:.1f}" for dx, dy in CORNERS[shape]) + "Z"


def line(points: Sequence[tuple[float, float]], **attributes: object) -> str:
    """Draw a line through places."""
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), **attributes)


def compact(value: float) -> str:
    """A tick label: 12k and 3.4M in place of many digits."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"
