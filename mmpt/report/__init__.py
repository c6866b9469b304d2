"""Reports of runs: ``python -m mmpt.report RUNS... [--out DIR]``. Importing this loads no torch and no matplotlib.

- :mod:`~mmpt.report.load` reads runs, :mod:`~mmpt.report.groups` puts those that differ only in the seed into rows,
  :mod:`~mmpt.report.compare` sets rows against a baseline; :mod:`~mmpt.report.stats` computes.
- :mod:`~mmpt.report.tables`, :mod:`~mmpt.report.latex`, :mod:`~mmpt.report.records`,
  :mod:`~mmpt.report.peft_format` and :mod:`~mmpt.report.page` write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mmpt.errors import RunError
from mmpt.report.groups import group, problems
from mmpt.report.load import load
from mmpt.report.run import Result, from_result
from mmpt.report.tables import short

__all__ = ["collect", "table"]


def collect(places: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """Read results.

    Args:
        places: Run directories, folders of run directories, or files that ``--out`` wrote.

    Returns:
        Results that count, and one line for each run that doesn't.

    Raises:
        RunError: A place is missing or holds no run.
    """
    loaded = load(places)
    if loaded.problems:
        raise RunError("; ".join(loaded.problems))
    done = [run.result for run in loaded.runs if run.status == "done"]
    return done, problems(group(run for run in loaded.runs if run.status != "done"))


def table(results: Sequence[Result]) -> str:
    """Format results as a Markdown table: one row a task and method, seeds averaged.

    Args:
        results: What :func:`collect` gave.

    Returns:
        The table; the best mean of a task is bold.
    """
    return short(group(from_result(f"result {count}", result) for count, result in enumerate(results, start=1)))
