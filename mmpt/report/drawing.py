"""How figures look and where they go: inline SVG for the page, and SVG, PDF and PNG files of one paper column's width.

Each part of a method has an id with ``-mNUMBER-``, by which the page shows and hides it. Colours are those of
the page's style sheet, so that figures follow its light and dark scheme.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from mmpt.utils.files import write_bytes

Boxes = Sequence[tuple[float, float, float, float]]
COLOURS = ("#1f6fb4", "#c4530f", "#17803d", "#8b3fb0", "#b3261e", "#7a5c00", "#0e7c86", "#5a5f66")
INK, SOFT, RULE, HEAT = "#1b1f24", "#59636e", "#d8dde3", "#08519c"
VARIABLES = {colour: f"var(--k{count})" for count, colour in enumerate(COLOURS)}
VARIABLES |= {INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)", HEAT: "var(--heat)"}
MARKERS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "P": "✚", "*": "★"}  # of matplotlib, and as text
WIDTH = 3.5  # inches: one column of a paper, and of the page
_NEAR = ((-5, 5), (5, -5), (7, 0), (-7, 0), (5, 5), (-5, -5))
PLACES = [(a * x, b * y) for a, b in ((1, 1), (2, 2.5)) for x, y in _NEAR]  # of labels, from their point
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "mmpt", "pdf.fonttype": 42, "font.size": 8}
_STYLE |= {"lines.markersize": 5, "text.color": INK, "grid.color": RULE}
_STYLE |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), SOFT)
_STYLE |= dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
_STYLE |= {"axes.grid": True, "axes.axisbelow": True, "text.parse_math": False}  # names of runs are never notation


@contextmanager
def style() -> Iterator[None]:
    """Draw and write figures in this block."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be of any script; readers have other fonts
        yield


def colour(index: int) -> str:
    """The colour of a method."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """The mark of a method; methods of one colour differ in it."""
    return list(MARKERS)[(index + index // len(COLOURS)) % len(MARKERS)]


@dataclass
class Drawing:
    """One figure, and what is said about it."""

    title: str  # above it
    canvas: Figure  # the figure of matplotlib
    axes: Any  # its axes, or an array of them
    caption: str = ""  # below it
    description: str = ""  # for those who cannot see it
    legend: dict[str, int] = field(default_factory=dict)  # method -> its number; the page has a legend of its own
    tips: dict[str, str] = field(default_factory=dict)  # id of a part -> what it shows

    @classmethod
    def start(cls, title: str, height: float = 2.5, left: float = 0.55, **panels: Any) -> Drawing:
        """Begin a figure; sizes in inches, ``panels`` as of matplotlib's ``subplots``."""
        canvas = Figure(figsize=(WIDTH, height))
        axes = canvas.subplots(**panels)
        for patch in (canvas.patch, *(one.patch for one in canvas.axes)):
            patch.set_alpha(0)
        canvas.subplots_adjust(left / WIDTH, 0.42 / height, 1 - 0.2 / WIDTH, 1 - 0.1 / height)
        return cls(title, canvas, axes)

    def tag(self, artist: Any, index: int, tip: str = "") -> None:
        """Give a part the id of its method, and a text that is shown when one points at it."""
        identity = f"part-m{index}-{len(self.tips)}"
        artist.set_gid(identity)
        self.tips[identity] = tip

    def plot(self, index: int, tip: str, *points: Any, **style: Any) -> None:
        """Draw marks or a line of a method, in its colour."""
        self.tag(self.axes.plot(*points, **{"color": colour(index), **style})[0], index, tip)


def label_points(drawing: Drawing, labels: Sequence[tuple[float, float, str, int]], boxes: Boxes) -> None:
    """Name points where there is room: inside of the axes, apart from every mark and from other labels.

    Args:
        drawing: It has all its marks.
        labels: x, y, text, and number of the method.
        boxes: Marks: left, bottom, right and top in the axes' units.
    """
    axes, renderer = drawing.axes, FigureCanvasAgg(drawing.canvas).get_renderer()
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # as the marks need them, whatever labels follow
    ends = (axes.transData.transform([(left, low), (right, high)]) for left, low, right, high in boxes)
    taken = [Bbox(one).padded(drawing.canvas.dpi * (5 if one[0][0] == one[1][0] else 1) / 72) for one in ends]
    for x, y, text, index in labels:
        for right, up in PLACES:
            style = {"ha": "left" if right > 0 else "right", "va": "bottom" if up > 0 else "top" if up else "center"}
            one = axes.annotate(text, (x, y), (right, up), textcoords="offset points", color=colour(index), **style)
            box = one.get_window_extent(renderer)
            inside = axes.bbox.x0 <= box.x0 and axes.bbox.y0 <= box.y0 and box.x1 <= axes.bbox.x1
            if inside and box.y1 <= axes.bbox.y1 and not box.count_overlaps(taken):
                taken.append(box)
                drawing.tag(one, index)
                break
            one.remove()


def inline(drawing: Drawing, prefix: str) -> str:
    """Write a figure as SVG for an HTML page.

    Args:
        drawing: Any figure.
        prefix: Of all its ids; no other figure of the page has it.
    """
    file = io.BytesIO()
    drawing.canvas.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue().decode("utf-8")
    box = re.search(r'viewBox="[\d. ]+"', text)
    assert box is not None
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.S)
    body = re.sub(r"<[^>]*>", lambda tag: _adapted(tag[0], drawing, prefix), body[body.index(">") + 1 :])
    title, description = html.escape(drawing.title), html.escape(drawing.description)
    head = f'<svg {box[0]} role="img" aria-label="{title}. {description}">'
    return f"{head}<title>{title}</title><desc>{description}</desc>{body}"


def _adapted(tag: str, drawing: Drawing, prefix: str) -> str:
    """One element's start: unique ids, colours of the style sheet, short numbers, and the part's tip."""
    tag = re.sub(r'(?<=[" ]id=")|(?<=href="#)|(?<=url\(#)', f"{prefix}-", tag)
    tag = re.sub(r"#[0-9a-f]{6}", lambda match: VARIABLES.get(match[0], match[0]), tag)
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    part = re.search(r"part-m\d+-\d+", tag)
    tip = drawing.tips.get(part[0], "") if part else ""
    return f"{tag}<title>{html.escape(tip)}</title>" if tip else tag


def save(drawing: Drawing, folder: Path, name: str) -> None:
    """Write a figure as SVG, PDF and PNG: with a legend, on white, with its fonts.

    Raises:
        RunError: A file cannot be written.
    """
    if names := drawing.legend:
        marks = [Line2D([], [], color=colour(i), marker=marker(i), linestyle="", label=n) for n, i in names.items()]
        columns = max(1, min(len(marks), 40 // (4 + max(map(len, names)))))
        drawing.canvas.legend(handles=marks, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns)
    for kind, date in (("svg", "Date"), ("pdf", "CreationDate"), ("png", "Creation Time")):
        look: dict[str, Any] = {"metadata": {date: None}, "bbox_inches": "tight", "facecolor": "white", "dpi": 300}
        with matplotlib.rc_context({"svg.fonttype": "path"}):
            drawing.canvas.savefig(file := io.BytesIO(), format=kind, **look)
        write_bytes(folder / f"{name}.{kind}", file.getvalue())
