"""From the runs of a comparison to what is committed: results, means over tasks, and why.

    python -m benchmarks.compare runs/compare --name bundled
    python -m benchmarks.compare runs/improve --name improve --by validation --baseline multimask

Writes ``benchmarks/results/compare/NAME.json`` (every score by seed, the statistics, what each run was made of) and
``NAME.md`` (tables). Statistics by task are those of ``python -m mmpt.report``; here come means over tasks: of a seed's
scores over all tasks, the mean and the standard deviation over seeds; against the baseline a paired t test over seeds,
and a paired bootstrap over test examples that draws within each task and weighs all tasks alike. P values over tasks
are corrected after Holm for the number of rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.routing import routing
from mmpt.errors import MmptError, RunError
from mmpt.report.columns import decimal, p_value, record
from mmpt.report.compare import compare
from mmpt.report.groups import Row, group, problems
from mmpt.report.load import load
from mmpt.report.records import with_config
from mmpt.report.run import Run
from mmpt.report.stats import CONFIDENCE, DRAWS, Paired, Summary, describe, holm, paired_t
from mmpt.report.tables import full, grid, markdown
from mmpt.utils.files import read_jsonl, write_bytes

RESULTS = Path(__file__).parent / "results" / "compare"
PERCENT = 100.0


@dataclass
class Overall:
    """One method over all tasks."""

    label: str
    rows: Mapping[str, Row]  # by task
    validation: Summary
    test: Summary
    by_seed: Paired | None = None
    by_example: Paired | None = None
    p_seed: float | None = None  # corrected
    p_example: float | None = None

    @property
    def trainable(self) -> float | None:
        """Trained parameters."""
        return next(iter(self.rows.values())).median("parameters.trainable")


def overall(rows: Sequence[Row], baseline: str) -> list[Overall]:
    """Means over tasks of every row that has all tasks, with the same seeds for each.

    Args:
        rows: Of :func:`mmpt.report.groups.group`, of one model.
        baseline: A label.

    Raises:
        RunError: No complete row has that label.
    """
    by_label: dict[str, dict[str, Row]] = defaultdict(dict)
    for label, row in zip(labels(rows), rows, strict=True):
        by_label[label][row.task] = row
    tasks = sorted({row.task for row in rows})
    complete = {
        label: found
        for label, found in by_label.items()
        if sorted(found) == tasks and len({tuple(row.seeds) for row in found.values()}) == 1
    }
    if baseline not in complete:
        raise RunError(f"--baseline {baseline}: not complete; complete are {', '.join(sorted(complete)) or 'none'}")
    listed = [
        Overall(label, found, *(describe(list(_means(found, split).values())) for split in ("validation", "test")))
        for label, found in complete.items()
    ]
    _against(listed, complete[baseline])
    return listed


def labels(rows: Sequence[Row]) -> list[str]:
    """Name each row by its method and by what differs from most rows of that method on its task."""
    settings = [row.flat for row in rows]
    common: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for row, values in zip(rows, settings, strict=True):
        for key, value in values.items():
            common[row.task, row.method, key][str(value)] += 1
    named = []
    for row, values in zip(rows, settings, strict=True):
        usual = {key: common[row.task, row.method, key].most_common(1)[0][0] for key in values}
        own = [f"{key.removeprefix('method.')}={v}" for key, v in values.items() if str(v) != usual[key]]
        named.append(" ".join([row.method, *own]))
    return named


def _means(found: Mapping[str, Row], split: str) -> dict[int, float]:
    """For each seed, the mean score over tasks."""
    columns = [{run.seed or 0: run.score(split) or 0.0 for run in row.runs} for row in found.values()]
    return {seed: statistics.fmean(column[seed] for column in columns) for seed in columns[0]}


def _against(listed: Sequence[Overall], base: Mapping[str, Row]) -> None:
    """Fill in the comparisons with the baseline, on the seeds that both have."""
    others = [one for one in listed if one.rows is not base]
    for one in others:
        mine, theirs = _means(one.rows, "test"), _means(base, "test")
        if seeds := sorted(mine.keys() & theirs.keys()):
            one.by_seed = paired_t([mine[seed] - theirs[seed] for seed in seeds])
            one.by_example = _bootstrap([_differences(one.rows[task], base[task], seeds) for task in sorted(base)])
    for one, seed, example in zip(
        others,
        holm([one.by_seed.p if one.by_seed else None for one in others]),
        holm([one.by_example.p if one.by_example else None for one in others]),
        strict=True,
    ):
        one.p_seed, one.p_example = seed, example


def _differences(mine: Row, theirs: Row, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
    """For each test example the difference in the share of seeds that get it right."""
    first, second = ([run for run in row.runs if run.seed in seeds] for row in (mine, theirs))
    return _right(first) - _right(second)


def _right(runs: Sequence[Run]) -> npt.NDArray[np.float64]:
    answers = []
    for run in runs:
        if run.directory is None:
            raise RunError(f"{run.name} has no run directory, so no predictions; give run directories")
        lines = {str(line["id"]): bool(line["correct"]) for line in read_jsonl(run.directory / "predictions.jsonl")}
        answers.append([lines[key] for key in sorted(lines)])
    return np.asarray(answers, dtype=np.float64).mean(axis=0)


def _bootstrap(tasks: Sequence[npt.NDArray[np.float64]]) -> Paired:
    """Paired bootstrap of the mean over tasks, drawn within each task."""
    random = np.random.default_rng(0)
    drawn = [values[random.integers(0, len(values), (DRAWS, len(values)))].mean(axis=1) for values in tasks]
    means = np.round(np.mean(drawn, axis=0), 12)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    p = 2 * (1 + min(int((means <= 0).sum()), int((means >= 0).sum()))) / (DRAWS + 1)
    return Paired(float(np.mean([values.mean() for values in tasks])), float(low), float(high), min(1.0, p))


def table(listed: Sequence[Overall], by: str) -> str:
    """Means over tasks as Markdown, in points; best first by a split's mean."""
    tasks = sorted(listed[0].rows)
    names = [
        "method",
        "n",
        "trainable",
        "validation",
        "test",
        "Δ test",
        "95 %, examples",
        "p, seeds",
        "p, examples",
        *tasks,
    ]
    lines = []
    for one in sorted(listed, key=lambda one: -getattr(one, by).mean):
        lines.append(
            [
                markdown(one.label),
                str(one.test.n),
                decimal(one.trainable, None),
                _points(one.validation),
                _points(one.test),
                f"{one.by_seed.difference * PERCENT:+.2f}" if one.by_seed else "baseline",
                interval_points(one.by_example),
                p_value(one.p_seed) if one.by_seed else "",
                p_value(one.p_example) if one.by_example else "",
                *(_points(one.rows[task].summary) for task in tasks),
            ]
        )
    return grid(names, lines)


def _points(summary: Summary | None) -> str:
    if summary is None:
        return "–"
    return f"{summary.mean * PERCENT:.1f}" + ("" if summary.sd is None else f" ± {summary.sd * PERCENT:.1f}")


def interval_points(paired: Paired | None) -> str:
    """An interval in points."""
    if paired is None or paired.low is None or paired.high is None:
        return ""
    return f"[{paired.low * PERCENT:+.1f}, {paired.high * PERCENT:+.1f}]"


def content(
    arguments: Sequence[str], rows: Sequence[Row], listed: Sequence[Overall], routes: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything of the tables as plain data, with the scores of each seed and the settings of each row."""
    return {
        "command": f"python -m benchmarks.compare {' '.join(arguments)}",
        "versions": with_config(rows[0].runs[0]).get("versions"),
        "data": {row.task: with_config(row.runs[0]).get("data") for row in rows},
        "over_tasks": [{**asdict(replace(one, rows={})), "rows": None, "trainable": one.trainable} for one in listed],
        "rows": [
            {
                **{name: value for name, value in record(row).items() if value is not None},
                "method_settings": row.runs[0].settings.values.get("method") if row.runs[0].settings else None,
                "scores": {split: {run.seed: run.score(split) for run in row.runs} for split in ("validation", "test")},
            }
            for row in rows
        ],
        "routing": routes,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Read runs and write both files; exit code 1 if a run does not count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS")
    parser.add_argument("--name", required=True, help="of the files in benchmarks/results/compare")
    parser.add_argument("--baseline", default="prefix", metavar="METHOD", help="a method, or a label of the table")
    parser.add_argument("--by", choices=("validation", "test"), default="test", help="what the table is sorted by")
    parser.add_argument("--routing", nargs="*", default=[], metavar="METHOD", help="routed methods to look into")
    arguments = parser.parse_args(argv)
    try:
        loaded = load(arguments.runs)
        rows = group(loaded.runs)
        trouble = [*loaded.problems, *problems(rows)]
        rows = [row for row in rows if row.summary]
        compare(rows, arguments.baseline.split()[0])
        listed = overall(rows, arguments.baseline)
        routes = {
            f"{label}, {row.task}, seed {run.seed}": routing(run.directory)
            for label, row in zip(labels(rows), rows, strict=True)
            for run in row.runs
            if row.method in arguments.routing and run.directory is not None
        }
    except MmptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    text = f"# {arguments.name}\n\nMeans over tasks, in points.\n\n{table(listed, arguments.by)}"
    if len({row.method for row in rows}) > 1:  # of an ablation the means are enough
        text += f"\n{full(rows)}"
    write_bytes(RESULTS / f"{arguments.name}.md", text.encode())
    found = content(sys.argv[1:] if argv is None else argv, rows, listed, routes)
    write_bytes(RESULTS / f"{arguments.name}.json", (json.dumps(found, indent=1) + "\n").encode())
    print(table(listed, arguments.by))
    for line in trouble:
        print(f"not done: {line}", file=sys.stderr)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
