"""A table of a sweep's settings by their names, from what the sweep itself recorded.

    python -m benchmarks.ablation runs/improve --name improve

Writes ``benchmarks/results/compare/NAME.json`` (scores of each trial) and ``NAME.md``: settings by falling mean
validation score over tasks and seeds, in points. What was tried with other tasks or seeds than most is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import PERCENT, RESULTS
from mmpt.report.tables import grid, markdown
from mmpt.sweep.ledger import FOLDER, Ledger
from mmpt.utils.files import write_bytes

Trial = dict[str, Any]
Trials = dict[str, list[Trial]]  # by setting


def trials(roots: Sequence[Path]) -> Trials:
    """Every trial that is done, the last word on each; names are those after ``setting=``."""
    found: dict[tuple[str, str, int], Trial] = {}
    for root in roots:
        for folder in sorted((root / FOLDER).iterdir()):
            for outcome in Ledger(folder).ended().values():
                words = dict(word.split("=", 1) for word in outcome.overrides.split())
                if (result := outcome.result) is None or "setting" not in words:
                    continue
                scores = {split: result["scores"][split][result["metric"]] for split in ("validation", "test")}
                name = words["setting"].split("/")[1]
                known = {"task": result["task"], "seed": result["seed"], "method": result["method"]}
                trainable = result["parameters"]["trainable"]
                found[name, result["task"], result["seed"]] = {**known, **scores, "trainable": trainable}
    by_setting: Trials = defaultdict(list)
    for (name, _, _), trial in found.items():
        by_setting[name].append(trial)
    return by_setting


def complete(by_setting: Mapping[str, list[Trial]]) -> Trials:
    """Settings with the tasks and seeds that most have."""
    covers = {name: tuple(sorted((one["task"], one["seed"]) for one in listed)) for name, listed in by_setting.items()}
    usual = Counter(covers.values()).most_common(1)[0][0]
    return {name: listed for name, listed in by_setting.items() if covers[name] == usual}


def table(by_setting: Mapping[str, list[Trial]]) -> str:
    """Markdown, best mean validation score first."""
    tasks = sorted({one["task"] for listed in by_setting.values() for one in listed})
    lines = []
    for name, listed in sorted(by_setting.items(), key=lambda item: -_mean(item[1], "validation")):
        by_task = [[one for one in listed if one["task"] == task] for task in tasks]
        cells = [f"{_mean(some, 'validation'):.1f} / {_mean(some, 'test'):.1f}" for some in by_task]
        means = [f"{_mean(listed, split):.1f}" for split in ("validation", "test")]
        lines.append([markdown(name), f"{listed[0]['trainable']:,}", *means, *cells])
    return grid(
        ["setting", "trainable", "validation", "test", *(f"{task}, validation / test" for task in tasks)], lines
    )


def _mean(listed: Sequence[Trial], split: str) -> float:
    return PERCENT * statistics.fmean(one[split] for one in listed)


def main(argv: Sequence[str] | None = None) -> None:
    """Read sweeps and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", type=Path, metavar="RUN_ROOT")
    parser.add_argument("--name", required=True, help="of the files in benchmarks/results/compare")
    arguments = parser.parse_args(argv)
    every = trials(arguments.roots)
    text = table(complete(every))
    print(text)
    words = " ".join(sys.argv[1:] if argv is None else argv)
    content = {"command": f"python -m benchmarks.ablation {words}", "trials": every}
    write_bytes(RESULTS / f"{arguments.name}.json", (json.dumps(content, indent=1) + "\n").encode())
    write_bytes(RESULTS / f"{arguments.name}.md", f"# {arguments.name}\n\n{text}".encode())


if __name__ == "__main__":
    main()
