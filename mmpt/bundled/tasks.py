"""The bundled miniature tasks: synthetic rows, one file a task, made by ``tools/toy/tasks.py``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from mmpt.errors import DataError, nearest

TASKS_DIR: Path = Path(__file__).parent / "miniatures"
NAMES: tuple[str, ...] = ("boolq", "cb", "copa", "rte", "wic", "multirc")

Row = dict[str, Any]


def records(task: str) -> dict[str, list[Row]]:
    """Return the rows of a miniature task.

    Args:
        task: One of :data:`NAMES`.

    Returns:
        ``train``, ``validation`` and ``test``; rows in the official fields (MultiRC: one row an answer, with
        ``idx.question`` and ``question_id``). The rows are the caller's to change.

    Raises:
        DataError: There is no miniature of that task.
    """
    if task not in NAMES:
        raise DataError(
            f'no bundled miniature of task "{task}"; there are: {", ".join(sorted(NAMES))}{nearest(task, NAMES)}; '
            "for your own or the official data use data=local data.dir=DIR"
        )
    splits: dict[str, list[Row]] = json.loads(gzip.decompress((TASKS_DIR / f"{task}.json.gz").read_bytes()))
    return splits
