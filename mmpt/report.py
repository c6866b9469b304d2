"""A table of finished runs: ``python -m mmpt.report RUNS... [--out FILE.jsonl]``.

Groups runs by task, model and method, and gives mean and standard deviation of the test score over seeds. Runs that
differ in more than the seed are refused, and runs that aren't done are named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmpt.errors import MmptError, RunError
from mmpt.training.files import dumps, read_json, read_jsonl, write_text

Result = dict[str, Any]


def collect(places: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """Read results.

    Args:
        places: Run directories, folders of run directories, or files that ``--out`` wrote.

    Returns:
        Results, and one line for each run directory without a result.

    Raises:
        RunError: A place is missing, holds no run, or is damaged.
    """
    results: list[Result] = []
    unfinished: list[str] = []
    for place in places:
        if place.is_file():
            results += read_jsonl(place)
            continue
        found = sorted(path.parent for path in place.rglob("status.json"))
        if not found:
            raise RunError(f"{place} holds no run; give run directories, or the run.root of a sweep")
        for directory in found:
            status = read_json(directory / "status.json")
            if status.get("status") == "done":
                results.append(read_json(directory / "result.json"))
            else:
                why = status.get("error", {}).get("message", "")
                unfinished.append(f"{directory.name}: {status.get('status')} {why}".rstrip())
    return results, unfinished


def table(results: Sequence[Result]) -> str:
    """Format results as a Markdown table: one row a task and method, seeds averaged.

    Args:
        results: What :func:`collect` gave.

    Returns:
        The table; the best mean of a task is bold.

    Raises:
        RunError: Runs of one row differ in data, backbone or settings other than the seed.
    """
    groups: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result["task"], result["model"], result["method"]].append(result)
    lines = [
        "| task | method | trainable | test, mean ± sd | seeds | majority | ms a step | training s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    best: dict[tuple[str, str], float] = {}
    for (task, model, _), runs in groups.items():
        best[task, model] = max(best.get((task, model), 0.0), statistics.mean(map(_test, runs)))
    for (task, model, method), runs in sorted(groups.items(), key=lambda item: _order(item, best)):
        _comparable(task, method, runs)
        scores = [_test(run) for run in runs]
        mean = statistics.mean(scores)
        spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
        shown = f"**{mean:.3f}**{spread}" if mean == best[task, model] else f"{mean:.3f}{spread}"
        first = runs[0]
        majority = first["scores"]["majority"][first["metric"]]
        step = statistics.median(run["timing"]["step_ms_median"] for run in runs)
        seconds = statistics.median(run["timing"]["train_s"] for run in runs)
        parameters = f"{first['parameters']['trainable']:,}"
        lines.append(
            f"| {task} ({first['metric']}) | {method} | {parameters} | {shown} | {len(runs)} | {majority:.3f} | "
            f"{step:.1f} | {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _test(run: Result) -> float:
    return float(run["scores"]["test"][run["metric"]])


def _order(item: tuple[tuple[str, str, str], list[Result]], best: dict[tuple[str, str], float]) -> tuple[Any, ...]:
    (task, model, _), runs = item
    return task, model, -statistics.mean(map(_test, runs))


def _comparable(task: str, method: str, runs: Sequence[Result]) -> None:
    """Refuse to average runs that aren't repetitions of each other."""
    for key in ("data_fingerprint", "backbone_fingerprint", "parameters"):
        if len({json.dumps(run[key], sort_keys=True) for run in runs}) > 1:
            raise RunError(f"runs of task={task} method={method} differ in {key}; report them apart")
    seeds = [run["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise RunError(f"runs of task={task} method={method} repeat a seed with other settings; report them apart")


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mmpt.report", description="A Markdown table of finished runs.")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNS", help="run directories, their root, or jsonl files"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write all results, one JSON object a line")
    arguments = parser.parse_args(argv)
    try:
        results, unfinished = collect(arguments.runs)
        if results:
            sys.stdout.write(table(results))
        if arguments.out is not None:
            write_text(arguments.out, "".join(dumps(result) + "\n" for result in results))
    except MmptError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    for line in unfinished:
        print(f"not done: {line}", file=sys.stderr)
    return 1 if unfinished else 0


if __name__ == "__main__":
    sys.exit(main())
