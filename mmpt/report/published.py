"""Published figures, to be compared with one's own: each with its source and setting, in published.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class Figure:
    """One published score."""

    task: str
    method: str
    score: str  # as printed in the source, divided by 100
    parameters: str  # trainable, as printed; empty where the source does not say
    metric: str
    backbone: str
    setting: str
    source: str


def figures() -> list[Figure]:
    """Read the published figures that come with the package.

    Returns:
        One a task, method and source, in the order of the file.
    """
    text = resources.files("mmpt.report").joinpath("published.json").read_text(encoding="utf-8")
    read = []
    for table in json.loads(text)["tables"]:
        for method, entry in table["methods"].items():
            for task, percent in entry["scores"].items():
                metric = table["metrics"].get(task, table["metrics"]["*"])
                setting = "; ".join(filter(None, [table["setting"], table["notes"].get(task, "")]))
                score = f"{percent / 100:.{len(str(percent).partition('.')[2]) + 2}f}"
                size = entry.get("parameters", "")
                read.append(Figure(task, method, score, size, metric, table["backbone"], setting, table["source"]))
    return read
