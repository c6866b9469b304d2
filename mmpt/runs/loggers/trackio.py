"""trackio: a dashboard on this machine over all runs of a project."""

from __future__ import annotations

import contextlib
import io
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.config.schema import LoggerConfig
from mmpt.runs.loggers.base import Logger, Mask, RunInfo, draw_masks


class TrackioLogger(Logger):
    """One trackio run, in the database that ``trackio show`` opens (``TRACKIO_DIR``); it needs no account."""

    label = "trackio"

    def __init__(self, config: LoggerConfig) -> None:
        """Hold the settings; nothing is imported before :meth:`start`."""
        self._config = config

    def start(self, run: RunInfo) -> None:
        """Begin a run, or continue the interrupted one without what it logged beyond its last valid step."""
        import trackio

        project, name = (
            self._config.project,
            f"{run.name}-{run.stored_id('trackio')}",
        )  # a run is its name
        if run.resume_step is not None:
            _delete_after(project, name, run.resume_step)
        with _quiet():
            self._run = trackio.init(
                project=project,
                name=name,
                group=self._config.group if self._config.group is not None else run.group,
                config={**run.config, "tags": list(run.tags)},
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._run.log(dict(values), step=step)

    def heatmap(self, key: str, masks: Mask, step: int) -> None:
        """Add a picture, a panel a route."""
        import trackio

        self._run.log({key: trackio.Image(draw_masks(masks))}, step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Add a table."""
        import trackio

        self._run.log({key: trackio.Table(columns=list(columns), data=[list(row) for row in rows])}, step=step)

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Log them at the last step: trackio has no numbers of a whole run."""
        self.log(step, values)

    def artifact(self, path: Path, name: str, type: str) -> None:
        """Record a file or folder."""
        with _quiet():
            self._run.log_artifact(str(path), name=name, type=type)

    def finish(self, status: str, step: int) -> None:
        """Wait until everything is in the database."""
        import trackio

        with _quiet():
            trackio.finish()


def _delete_after(project: str, name: str, step: int) -> None:
    """Delete the rows of a run beyond a step; trackio itself can only delete whole runs."""
    from trackio.sqlite_storage import SQLiteStorage

    record = SQLiteStorage.get_latest_run_record_by_name(project, name)
    if record is not None:
        with contextlib.closing(sqlite3.connect(SQLiteStorage.get_project_db_path(project), timeout=30)) as database:
            database.execute("DELETE FROM metrics WHERE run_id = ? AND step > ?", (record["id"], step))
            database.commit()


def _quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """Hide trackio's own output."""
    return contextlib.redirect_stdout(io.StringIO())
