"""Two runs side by side: their settings that differ, what they measured, and the test examples on which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpt.errors import RunError
from mmpt.report.columns import NONE, decimal, view
from mmpt.report.details import predictions
from mmpt.report.groups import group
from mmpt.report.load import load
from mmpt.report.run import Run
from mmpt.report.settings import differing, shown
from mmpt.report.tables import grid, markdown

MEASURED = view("trainable bytes step_ms_median train_s peak_bytes steps")
LONGEST = 160  # characters of a source


def diff(paths: Sequence[Path], most: int | None = None) -> str:
    """Compare two run directories, in Markdown; ``most`` limits the examples that are shown.

    Raises:
        RunError: These are not two runs.
    """
    runs = [_one(path) for path in paths]
    if len(runs) != 2:
        raise RunError(f"--diff compares two run directories; got {len(runs)}: mmpt report RUN_A RUN_B --diff")
    names = [markdown(f"{label}: {run.name}") for label, run in zip("AB", runs, strict=True)]
    flat = [run.settings.flat | {"seed": run.seed} if run.settings else {} for run in runs]
    settings = [[key, *(shown(one[key]) if key in one else NONE for one in flat)] for key in differing(flat)]
    parts = [f"Settings that differ\n\n{_table(['setting', *names], settings)}" if settings else "Equal settings\n"]
    parts.append(f"Measured\n\n{_table(['measured', *names], _measured(runs))}")
    return "\n".join([*parts, _examples(runs, most)])


def _one(path: Path) -> Run:
    loaded = load([path])
    if loaded.problems or len(loaded.runs) != 1:
        raise RunError("; ".join(loaded.problems) or f"{path} holds {len(loaded.runs)} runs; --diff needs a run's own")
    return loaded.runs[0]


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return grid(heads, [[markdown(text) for text in line] for line in lines])


def _measured(runs: Sequence[Run]) -> list[list[str]]:
    lines = [["status", *(run.status for run in runs)]]
    for split in ("test", "validation"):
        scores = [(run.score(split), run.metric) for run in runs]
        texts = [NONE if score is None else f"{decimal(score)} ({metric})" for score, metric in scores]
        lines.append([f"{split} score", *texts])
    rows = [group([run])[0] for run in runs]
    return lines + [[column.heading, *(column.show(row) for row in rows)] for column in MEASURED]


def _examples(runs: Sequence[Run], most: int | None) -> str:
    """The test examples that only one of both gets right, or that both predict differently."""
    try:
        first, second = ({str(line.get("id")): line for line in predictions(run.directory)} for run in runs)
    except ValueError as error:
        return f"No test examples to compare: {markdown(error)}\n"
    common = [key for key in first if key in second and first[key].get("source") == second[key].get("source")]
    differ = [key for key in common if first[key].get("prediction") != second[key].get("prediction")]
    right = [sum(one[key].get("correct") is True for key in differ) for one in (first, second)]
    said = (
        f"{len(differ)} of {len(common)} common test examples differ; A is right on {right[0]} of them, B on {right[1]}"
    )
    lines = [
        [key, str(first[key].get("source"))[:LONGEST], str(first[key].get("target"))]
        + [f"{one[key].get('prediction')}{' (right)' * (one[key].get('correct') is True)}" for one in (first, second)]
        for key in differ[:most]
    ]
    if len(differ) > len(lines):
        said += f"; the first {len(lines)} are shown, --out DIR writes all"
    return f"{said}\n" + (f"\n{_table(['id', 'source', 'target', 'A', 'B'], lines)}" if lines else "")
