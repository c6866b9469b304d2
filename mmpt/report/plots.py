"""The plots of a page, each one inline SVG with a title and a description. A mark's class names its method."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt.report.details import Points
from mmpt.report.groups import Row
from mmpt.report.published import Figure
from mmpt.report.run import number
from mmpt.report.stats import pareto
from mmpt.report.svg import BOTTOM, LEFT, RIGHT, SHAPES, TOP, WIDTH, Frame, Scale, compact, line, marker, picture, tag
from mmpt.report.tables import interval, spread

HEIGHT = 340.0
COLOURS = 8
DASHES = ("solid", "dashed", "dotted", "dash and dot")  # of the settings of one method, in turn
LONGEST = 38  # signs of a label beside an axis


@dataclass(frozen=True)
class Plot:
    """A picture and what is said below it."""

    title: str
    svg: str
    caption: str = ""


def style(index: int) -> str:
    """Class names of a method: one to switch it off, one for its colour."""
    return f"m{index} c{index % COLOURS}"


def shape(index: int) -> str:
    """The mark of a method; methods of one colour differ in it."""
    return SHAPES[(index + index // COLOURS) % len(SHAPES)]


def scores(rows: Sequence[Row], methods: Mapping[str, int], figures: Sequence[Figure] = ()) -> Plot:
    """Score by method with spread: seeds as dots, the mean as a mark, the interval as a bar."""
    step = 30.0
    height = TOP + step * (len(rows) + len(figures)) + BOTTOM
    left = 262.0
    beside = [float(figure.score) for figure in figures]
    ends = [end for row in rows if row.summary for end in (row.summary.low, row.summary.high) if end is not None]
    values = [score for row in rows for score in row.scores] + beside
    ends = [min(max(end, min(values) - 0.2), max(values) + 0.2) for end in ends]
    frame = Frame(Scale.over([*values, *ends], left, WIDTH - RIGHT), Scale(0, 1, TOP, height - BOTTOM), height)
    frame.axes(f"test {rows[0].metric}", "", y_ticks=False)
    majority = rows[0].median("scores", "majority", rows[0].metric)
    if majority is not None and frame.x.low <= majority <= frame.x.high:
        at = frame.x(majority)
        tip = tag("title", text=f"majority baseline {majority:.3f}")
        frame.marks.append(tag("line", tip, class_="majority", x1=at, x2=at, y1=TOP, y2=height - BOTTOM))
    for count, row in enumerate(rows):
        frame.marks.append(_strip(row, frame, TOP + step * (count + 0.5), left, methods[row.method]))
    for count, figure in enumerate(figures, start=len(rows)):
        y, score = TOP + step * (count + 0.5), float(figure.score)
        tip = f"{figure.method}, published: {figure.score} ({figure.backbone}; {figure.source}; {figure.setting})"
        mark = marker("diamond", frame.x(score), y, 5, tip, class_="published")
        label = tag(
            "text",
            text=_cut(f"{figure.method}, {figure.backbone} †"),
            class_="label",
            x=left - 10,
            y=y + 4,
            text_anchor="end",
        )
        frame.marks.append(tag("g", label, mark, class_="beside"))
    told = "; ".join(f"{row.label}: {spread(row)}" for row in rows[:12])
    return Plot(
        "Score by method", picture("Score by method", told, frame.marks, height), _score_caption(majority, figures)
    )


def _score_caption(majority: float | None, figures: Sequence[Figure]) -> str:
    text = "Small dots are seeds, the large mark is their mean, the bar its 95 % interval."
    if majority is not None:
        text += " The dashed line is the majority baseline."
    return text + (" Hollow diamonds (†) are published figures, not run here." if figures else "")


def _strip(row: Row, frame: Frame, y: float, left: float, index: int) -> str:
    summary = row.summary
    assert summary is not None
    parts = [
        tag(
            "text",
            tag("title", text=row.label),
            text=_cut(row.label),
            class_="label",
            x=left - 10,
            y=y + 4,
            text_anchor="end",
        )
    ]
    if summary.low is not None and summary.high is not None:
        ends = (max(summary.low, frame.x.low), min(summary.high, frame.x.high))
        parts.append(tag("line", class_="bar", x1=frame.x(ends[0]), x2=frame.x(ends[1]), y1=y, y2=y))
    for run in row.runs:
        if (score := run.score()) is not None:
            parts.append(marker("circle", frame.x(score), y, 3, f"seed {run.seed}: {score:.3f}", class_="seed"))
    tip = f"{row.label}: {spread(row)}, n = {summary.n}, {interval(summary.low, summary.high)}"
    parts.append(marker(shape(index), frame.x(summary.mean), y, 6, tip, class_="mark"))
    return tag("g", *parts, class_=style(index))


def trade_off(rows: Sequence[Row], methods: Mapping[str, int], cost: tuple[str, str], name: str) -> Plot | None:
    """Score against a cost, the Pareto front marked; None where no run tells the cost."""
    known = [(row, value) for row in rows if row.summary and (value := row.median(*cost)) is not None]
    if not known:
        return None
    points = [(value, row.summary.mean) for row, value in known if row.summary]
    low_high = [end for row, _ in known if row.summary for end in _sd_ends(row)]
    x = Scale.over([value for value, _ in points], LEFT, WIDTH - RIGHT, log=True)
    frame = Frame(x, Scale.over(low_high, HEIGHT - BOTTOM, TOP), HEIGHT)
    frame.axes(name, f"test {rows[0].metric}")
    front = pareto(points)
    stairs = _stairs([(x(points[i][0]), frame.y(points[i][1])) for i in front])
    frame.marks.append(line(stairs, class_="front"))
    for row, value in known:
        frame.marks.append(_point(row, (x(value), frame.y), methods[row.method], value, name))
    frame.marks += _names(
        [known[i][0] for i in front], [(x(points[i][0]), frame.y(points[i][1])) for i in front], methods
    )
    told = "; ".join(f"{known[i][0].label}: {compact(points[i][0])}, {points[i][1]:.3f}" for i in front)
    title = f"Score against {name}"
    caption = (
        "Named and ringed: the Pareto front, where no other row costs less and scores more. Bars: ± sd over seeds."
    )
    return Plot(title, picture(title, f"Pareto front: {told}", frame.marks, HEIGHT), caption)


def _sd_ends(row: Row) -> tuple[float, float]:
    assert row.summary is not None
    sd = row.summary.sd or 0.0
    return row.summary.mean - sd, row.summary.mean + sd


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The front as steps: between two of its points one still has only the score of the cheaper one."""
    stairs = list(points[:1])
    for x, y in points[1:]:
        stairs += [(x, stairs[-1][1]), (x, y)]
    return stairs


def _names(rows: Sequence[Row], places: Sequence[tuple[float, float]], methods: Mapping[str, int]) -> list[str]:
    """Ring and name points; of four places around a point, a name takes the first that is free."""
    parts: list[str] = []
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in places]
    for row, (x, y) in zip(rows, places, strict=True):
        name = _cut(row.label)
        wide = 6.5 * len(name)
        spots = [(x + 13, y - 10), (x - 13 - wide, y - 10), (x + 13, y + 18), (x - 13 - wide, y + 18)]
        boxes = [(left, base - 10, left + wide, base + 3) for left, base in spots]
        free = [
            box for box in boxes if box[0] > LEFT and box[2] < WIDTH and not any(_meet(box, other) for other in taken)
        ]
        box = free[0] if free else boxes[1 if x > WIDTH / 2 else 0]
        taken.append(box)
        ring = tag("circle", class_="ring", cx=x, cy=y, r=11)
        text = tag("text", text=name, class_="label named", x=box[0], y=box[3] - 3)
        parts.append(tag("g", ring, text, class_=style(methods[row.method])))
    return parts


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _point(row: Row, place: tuple[float, Scale], index: int, value: float, name: str) -> str:
    assert row.summary is not None
    x, scale = place
    y, (low, high) = scale(row.summary.mean), _sd_ends(row)
    parts = [tag("line", class_="bar thin", x1=x, x2=x, y1=scale(low), y2=scale(high))]
    tip = f"{row.label}: {spread(row)} at {compact(value)} {name}"
    parts.append(marker(shape(index), x, y, 6, tip, class_="mark"))
    return tag("g", *parts, class_=style(index))


def curves(
    found: Sequence[tuple[Row, list[Points]]], methods: Mapping[str, int], title: str, name: str, log: bool = False
) -> Plot | None:
    """A metric over training: a thin line a seed, a thick one for their mean."""
    found = [(row, [points for points in lines if points]) for row, lines in found]
    every = [point for _, lines in found for points in lines for point in points]
    if not every:
        return None
    values = [value for _, value in every]
    x = Scale.over([step for step, _ in every], LEFT, WIDTH - RIGHT)
    frame = Frame(x, Scale.over(values, HEIGHT - BOTTOM, TOP, log=log), HEIGHT)
    frame.axes("optimizer step", name)
    drawn: Counter[str] = Counter()
    for row, lines in found:
        dash = f"d{drawn[row.method] % len(DASHES)}"
        drawn[row.method] += 1
        frame.marks.append(_curve(row, lines, frame, (methods[row.method], dash)))
    told = "; ".join(f"{row.label} ends at {_mean(lines)[-1][1]:.3g}" for row, lines in found if lines)
    caption = "Thin lines are seeds, thick ones their mean."
    if max(drawn.values()) > 1:
        caption += f" Settings of a method, by rank: {', '.join(DASHES)}; pointing at a mark names it."
    return Plot(title, picture(title, told, frame.marks, HEIGHT), caption)


def _curve(row: Row, lines: Sequence[Points], frame: Frame, look: tuple[int, str]) -> str:
    index, dash = look
    places = [[(frame.x(step), frame.y(value)) for step, value in points] for points in [*lines, _mean(lines)]]
    parts = [line(one, class_="curve thin") for one in places[:-1]]
    parts.append(tag("g", tag("title", text=row.label), line(places[-1], class_=f"curve {dash}")))
    parts += [
        marker(shape(index), frame.x(s), frame.y(v), 3.5, f"{row.label}, step {s:g}: {v:.3g}", class_="mark")
        for s, v in _mean(lines)
    ]
    return tag("g", *parts, class_=style(index))


def _mean(lines: Sequence[Points]) -> Points:
    """Mean over seeds at the steps that all of them have; the first line where they have none in common."""
    tables = [dict(points) for points in lines]
    common = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    if not common:
        return list(lines[0]) if lines else []
    return [(step, statistics.fmean(table[step] for table in tables)) for step in common]


def effect(rows: Sequence[Row], key: str, values: Mapping[int, Any], index: int) -> Plot:
    """Score against one setting of a method; ``values`` has it by row number."""
    numeric = all(number({key: value}, key) is not None for value in values.values())
    words = sorted({str(value) for value in values.values()})
    places = {count: float(value) if numeric else float(words.index(str(value))) for count, value in values.items()}
    height = 240.0
    wide = numeric and min(places.values()) > 0 and max(places.values()) / min(places.values()) >= 10
    x = Scale.over([*places.values()], LEFT, WIDTH - RIGHT, log=wide)
    ends = [end for count in places for end in (*_sd_ends(rows[count]), *rows[count].scores)]
    frame = Frame(x, Scale.over(ends, height - BOTTOM, TOP), height)
    frame.axes(key, f"test {rows[0].metric}", x_at=None if numeric else [])
    for count, word in enumerate([] if numeric else words):
        frame.marks.append(
            tag("text", text=_cut(word), class_="tick", x=x(count), y=height - BOTTOM + 16, text_anchor="middle")
        )
    for count, value in places.items():
        row = rows[count]
        frame.marks.append(_point(row, (x(value), frame.y), index, value, key))
    title = f"Effect of {key} on {rows[0].method}"
    told = "; ".join(f"{values[count]}: {spread(rows[count])}" for count in list(places)[:12])
    return Plot(title, picture(title, told, frame.marks, height), "One mark a setting; bars: ± sd over seeds.")


def _cut(text: str, longest: int = LONGEST) -> str:
    """Leave out the middle of a long name: methods begin it, values end it."""
    return text if len(text) <= longest else f"{text[: longest // 2 - 1]}…{text[-longest // 2 :]}"
