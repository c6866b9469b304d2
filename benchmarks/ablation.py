"""A table of a sweep's settings by the names that its definition gives them, from the run directories.

    python -m benchmarks.ablation runs/improve --name improve

Writes ``benchmarks/results/compare/NAME.json`` (scores of each trial; of a mixture, those of its tasks and their mean
route probabilities) and ``NAME.md``: settings by falling mean validation score over tasks and seeds, in points. The
table leaves out what was tried with other tasks or seeds than most.
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
from mmpt.cli import SWEEPS
from mmpt.errors import RunError
from mmpt.report.columns import scores_by_task
from mmpt.report.details import routes_by_task
from mmpt.report.tables import grid, markdown
from mmpt.runs.record import read_result
from mmpt.runs.result import Result
from mmpt.utils.files import read_jsonl, write_bytes
from mmpt.utils.untrusted import parse_yaml

Trial = dict[str, Any]
Trials = dict[str, list[Trial]]  # by setting


def trials(roots: Sequence[Path], definition: Path) -> Trials:
    """Every run that is done and has a setting of the definition; a run's values say which one it has."""
    settings = parse_yaml(definition.read_text(encoding="utf-8"))["settings"]
    wanted = {name: _leaves(setting) for name, setting in settings.items()}
    by_setting: Trials = defaultdict(list)
    for path in sorted(path for root in roots for path in root.glob("*/result.json")):
        try:
            result = read_result(path.parent)
        except RunError:
            continue
        name = _setting(result.config or {}, wanted)
        scores = {split: result.score(split) for split in ("validation", "test")}
        if name is not None and None not in scores.values():
            known = {"task": result.task, "seed": result.seed, "method": result.method}
            trial = {**known, **scores, "trainable": result.parameters.trainable}
            by_setting[name].append(trial | _of_mixture(result, path.parent))
    return by_setting


def _of_mixture(result: Result, place: Path) -> dict[str, Any]:
    """Test scores by task of a mixture, and the mean probability of each route; nothing of a single task."""
    parts = scores_by_task(result)
    routes = routes_by_task(list(read_jsonl(place / "metrics.jsonl"))) if parts else {}
    rounded = {task: [round(value, 3) for value in each] for task, each in routes.items()}
    return ({"test_by_task": parts} if parts else {}) | ({"routes": rounded} if rounded else {})


def _setting(config: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The most specific setting whose values a run has; None where there is none."""
    values = _leaves(config)
    fitting = [name for name, leaves in wanted.items() if leaves.items() <= values.items()]
    return max(fitting, key=lambda name: len(wanted[name]), default=None)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value as text; a choice in ``defaults`` stands for the group's name."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if key == "defaults":
            chosen = {key: option for item in value for key, option in item.items()}
            leaves |= {f"{key.removeprefix('override /')}.name": repr(option) for key, option in chosen.items()}
        elif isinstance(value, Mapping) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = repr(value)
    return leaves


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
    parser.add_argument("--sweep", help="the definition's name in sweeps/; by default --name")
    arguments = parser.parse_args(argv)
    every = trials(arguments.roots, SWEEPS / f"{arguments.sweep or arguments.name}.yaml")
    text = table(complete(every))
    print(text)
    words = " ".join(sys.argv[1:] if argv is None else argv)
    content = {"command": f"python -m benchmarks.ablation {words}", "trials": every}
    write_bytes(RESULTS / f"{arguments.name}.json", (json.dumps(content, indent=1) + "\n").encode())
    write_bytes(RESULTS / f"{arguments.name}.md", f"# {arguments.name}\n\n{text}".encode())


if __name__ == "__main__":
    main()
