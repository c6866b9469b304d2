"""TensorBoard event files in the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from mmpt.runs.loggers.base import RunInfo
from mmpt.runs.loggers.draw import draw_masks

ROWS = 100  # of a table; TensorBoard keeps texts in memory


class TensorboardLogger:
    """``tensorboard/``: scalars, masks as images, tables as text, settings and final scores as hyperparameters."""

    label = "TensorBoard"

    def start(self, run: RunInfo) -> None:
        """Begin an event file; TensorBoard then leaves out what earlier ones hold beyond the step that is kept."""
        from torch.utils.tensorboard import SummaryWriter

        purge = None if run.resume_step is None else run.resume_step + 1
        self._writer = SummaryWriter(str(run.directory / "tensorboard"), purge_step=purge)
        self._settings = flat(run.config)
        about = [("run", run.name), ("group", run.group or ""), ("tags", ", ".join(run.tags))]
        self._writer.add_text("config", _markdown(["key", "value"], [*about, *self._settings.items()]))
        self._step = 0
        self._writer.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._step = step
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def heatmap(self, key: str, array: npt.NDArray[Any], step: int) -> None:
        """Add a picture, a panel a route."""
        self._writer.add_image(key, draw_masks(array), step, dataformats="HWC")

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add the first rows as text; the run directory has them all."""
        self._writer.add_text(key, _markdown(columns, rows[:ROWS]), self._step)

    def summary(self, values: Mapping[str, float]) -> None:
        """Show the run in the table and the parallel coordinates of the tab HParams."""
        from torch.utils.tensorboard.summary import hparams

        settings = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in self._settings.items()
        }
        # Not add_hparams(): it makes a run of its own of them, and its first summary hides what other runs have.
        for summary in hparams(settings, dict(values))[1:]:
            self._writer._get_file_writer().add_summary(summary)
        for key, value in values.items():
            self._writer.add_scalar(key, value, self._step)

    def artifact(self, path: Path, name: str, type: str) -> None:
        """Do nothing: TensorBoard keeps no files, and what is saved lies in the run directory already."""

    def finish(self, status: str) -> None:
        """Write the status, and close the file."""
        self._writer.add_text("status", status, self._step)
        self._writer.close()


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Spell nested settings as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
