"""Pictures of the results: ``python -m benchmarks.plot`` draws ``benchmarks/results/*.svg`` from the JSON there."""

from __future__ import annotations

import json
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.setting import BEST, PEFT, RESULTS


def main() -> None:
    """Draw what there is."""
    matplotlib.rcParams["svg.hashsalt"] = "mmpt"  # the same figures give the same file
    for name, draw in (("step", steps), ("growth", growth)):
        path = RESULTS / f"{name}.json"
        if path.exists():
            figure = draw(json.loads(path.read_text(encoding="utf-8")))
            figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
            print(RESULTS / f"{name}.svg")


def steps(content: dict[str, Any]) -> Figure:
    """Milliseconds of a step by way, a panel for each shape and kind of lengths."""
    cases = list(dict.fromkeys((row["shape"], row["lengths"]) for row in content["rows"]))
    figure = Figure(figsize=(4 * len(cases), 3.6), layout="constrained")
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for number, (panel, case) in enumerate(zip(panels, cases, strict=True)):
        rows = [row for row in content["rows"] if (row["shape"], row["lengths"]) == case][::-1]
        colours = ["tab:blue" if row["way"].startswith("ours") else "tab:gray" for row in rows]
        panel.barh(range(len(rows)), [row["ms"] for row in rows], color=colours)
        labels = [row["way"] for row in rows] if number == 0 else [""] * len(rows)
        panel.set_yticks(range(len(rows)), labels)
        panel.set(title=f"{case[0]}, {case[1]} lengths", xlabel="ms a training step")
        for place, row in enumerate(rows):
            panel.annotate(f" {row['peft prefix / this']:.1f}×", (row["ms"], place), va="center", fontsize=8)
        panel.margins(x=0.15)
    return figure


def growth(content: dict[str, Any]) -> Figure:
    """Milliseconds over source length and prefix length."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, axis, other, fixed in ((panels[0], "T", "S", 10), (panels[1], "S", "T", 96)):
        for way, colour in ((PEFT, "tab:gray"), (BEST, "tab:blue")):
            chosen = {row[axis]: row for row in content["rows"] if row["way"] == way and row[other] == fixed}
            rows = [chosen[value] for value in sorted(chosen)]
            panel.plot([row[axis] for row in rows], [row["ms"] for row in rows], "o-", color=colour, label=way)
        panel.set(xscale="log", yscale="log", ylabel="ms a training step")
        panel.set_xlabel("source tokens T" if axis == "T" else "prefix tokens S")
    panels[0].legend()
    return figure


if __name__ == "__main__":
    main()
