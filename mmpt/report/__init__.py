"""Reports of runs: ``python -m mmpt.report RUNS... [--out DIR]``. Importing this loads no torch and no matplotlib.

- :mod:`~mmpt.report.load` reads runs, :mod:`~mmpt.report.groups` puts those that differ only in the seed into rows,
  :mod:`~mmpt.report.compare` compares rows with a baseline; :mod:`~mmpt.report.stats` computes.
- :mod:`~mmpt.report.columns` is the one table of columns, from which :mod:`~mmpt.report.tables`,
  :mod:`~mmpt.report.records` and :mod:`~mmpt.report.page` are made; :mod:`~mmpt.report.figures` draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mmpt.errors import RunError
from mmpt.report.groups import group, problems
from mmpt.report.load import load
from mmpt.report.records import with_config
from mmpt.report.run import Run, from_content
from mmpt.report.tables import short
from mmpt.runs.result import Result

__all__ = ["collect", "table"]


def collect(paths: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """Read results.

    Args:
        paths: Run directories, folders of run directories, or files that ``--out`` wrote.

    Returns:
        Results that count, each with its configuration, and one line for each run that does not.

    Raises:
        RunError: A path is missing or holds no run.
    """
    loaded = load(paths)
    if loaded.problems:
        raise RunError("; ".join(loaded.problems))
    done = [Result.from_dict(with_config(run)) for run in loaded.runs if run.status == "done"]
    return done, problems(group(run for run in loaded.runs if run.status != "done"))


def table(results: Sequence[Result]) -> str:
    """Format results as a Markdown table: one row a task and method, seeds averaged.

    Args:
        results: Of :func:`collect`.

    Returns:
        The table; the best mean of a task is bold.
    """
    runs = (Run(f"result {count}", "done") for count in range(1, len(results) + 1))
    return short(group(from_content(run, one.to_dict(config=True)) for run, one in zip(runs, results, strict=True)))
