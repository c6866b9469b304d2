"""TensorBoard event files in the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt.runs.loggers.base import Logger, Mask, RunInfo, draw_masks

ROWS = 100  # of a table; TensorBoard holds texts in memory


class TensorboardLogger(Logger):
    """``tensorboard/``: scalars, masks as images, tables as text, settings and final scores as hyperparameters."""

    label = "TensorBoard"

    def start(self, run: RunInfo) -> None:
        """Begin an event file; TensorBoard then ignores what earlier ones hold beyond the last valid step."""
        from torch.utils.tensorboard import SummaryWriter

        self._directory = str(run.directory / "tensorboard")
        purge = None if run.resume_step is None else run.resume_step + 1
        self._writer = SummaryWriter(self._directory, purge_step=purge)
        self._settings = flat(run.config)
        about = [("run", run.name), ("group", run.group or ""), ("tags", ", ".join(run.tags))]
        self._writer.add_text("config", _markdown(["key", "value"], [*about, *self._settings.items()]))
        self._writer.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def heatmap(self, key: str, masks: Mask, step: int) -> None:
        """Add a picture, a panel a route."""
        self._writer.add_image(key, draw_masks(masks), step, dataformats="HWC")

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Add the first rows as text; the run directory has them all."""
        self._writer.add_text(key, _markdown(columns, rows[:ROWS]), step)

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Show the run in the table and the parallel coordinates of the tab HParams."""
        from torch.utils.tensorboard import FileWriter
        from torch.utils.tensorboard.summary import hparams

        plain = bool | int | float | str
        settings = {key: one if isinstance(one, plain) else str(one) for key, one in self._settings.items()}
        # Not add_hparams(): it makes a run of its own of them, and its first summary hides what other runs have.
        writer = FileWriter(self._directory, filename_suffix=".hparams")
        for one in hparams(settings, dict(values))[1:]:
            writer.add_summary(one)
        writer.close()
        self.log(step, values)

    def finish(self, status: str, step: int) -> None:
        """Write the status, and close the file."""
        self._writer.add_text("status", status, step)
        self._writer.close()


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Spell nested settings as dotted keys."""
    settings: dict[str, Any] = {}
    for key, value in config.items():
        settings |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return settings


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
