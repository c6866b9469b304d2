"""What a run prints: notes, progress, the final figures, and the run directory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from mmpt.runs.result import Result, Score
from mmpt.utils.screen import new_console, show
from mmpt.utils.text import duration, size_text

PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal


class Progress:
    """How far training is: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, total: int, done: int, bar: RichProgress | None) -> None:
        """Begin at a step; use :meth:`Console.progress`."""
        self._console, self._total, self._bar = console, total, bar
        self._first = self._step = self._shown = done
        self._began = self._printed = time.monotonic()
        self._loss = self._score = ""
        if bar is not None:
            self._task = bar.add_task("training", total=total, completed=done, loss="", score="")

    def update(self, step: int, *, loss: float | None = None, score: float | None = None) -> None:
        """Show a step, with its loss (None: the last one), and a new score, which is always worth a line."""
        self._loss = self._loss if loss is None else f"loss {loss:.4f}"
        self._score = self._score if score is None else f"validation {score:.3f}"
        self._step = step
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=self._loss, score=self._score)
        elif score is not None or time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._line(self._score if score is not None else "")  # an older score is not this step's

    def close(self) -> None:
        """Print the last step, unless its line is there."""
        if self._bar is None and self._step > self._shown:
            self._line("")

    def _line(self, score: str) -> None:
        self._printed, self._shown = time.monotonic(), self._step
        pace = (self._printed - self._began) / max(self._step - self._first, 1)
        left = f"{duration(pace * (self._total - self._step))} left" if self._step < self._total else ""
        parts = [f"step {self._step}/{self._total}", self._loss, score, left]
        self._console.note("  ".join(filter(None, parts)))


class Console:
    """Everything a run prints, so that it reads as one text."""

    def __init__(self, directory: Path, file: TextIO | None = None) -> None:
        """Print to ``file``, standard output where None; ``directory`` is the run directory, named at the end."""
        self._directory = directory
        self._console = new_console(file)
        self._warned: set[str] = set()

    def note(self, text: str) -> None:
        """Print a line."""
        show(self._console, text)

    def warn(self, text: str) -> None:
        """Print a line the user should act on, once."""
        if text not in self._warned:
            self._warned.add(text)
            show(self._console, f"warning: {text}", "yellow")

    @contextlib.contextmanager
    def progress(self, total: int, done: int = 0) -> Iterator[Progress]:
        """Show progress of ``total`` steps while the block runs, ``done`` of them by an earlier process."""
        if not self._console.is_terminal:
            progress = Progress(self, total, done, None)
            yield progress
            progress.close()
            return
        figures = (TextColumn("{task.fields[loss]}"), TextColumn("{task.fields[score]}"))
        bar = BarColumn(bar_width=None)
        columns = (TextColumn("{task.description}"), bar, MofNCompleteColumn(), *figures, TimeRemainingColumn(True))
        with RichProgress(*columns, console=self._console, expand=True, transient=True) as shown:
            yield Progress(self, total, done, shown)

    def final_table(self, result: Result) -> None:
        """Print the figures of a finished run, and its directory."""
        self.note("")
        self.note(f"{result.task} with {result.method} on {result.model}, seed {result.seed}")
        for name, value in final_rows(result):
            self.note(f"  {name:<12}{value}")
        for warning in result.warnings or ():
            self.warn(warning)
        self.note(f"run directory: {self._directory}")


def final_rows(result: Result) -> list[tuple[str, str]]:
    """Name and figures of each line of the final table; what is not known is left out."""
    sizes, timing = result.parameters, result.timing
    trainable, total = sizes.trainable or 0, sizes.total or 0
    share = 100 * trainable / max(total, 1)
    saved = size_text(sizes.bytes or 0)
    rows = [("trainable", f"{trainable:,} of {total:,} parameters ({share:.2f} %), {saved} saved")]
    rows += [(split.split("_")[0], _score(result, score)) for split, score in result.scores.splits.items()]
    rows.append(("baselines", _baselines(result)))
    step = "" if timing.step_ms_median is None else f"{timing.step_ms_median:.1f} ms a step, "
    rows.append(("time", f"{step}{duration(timing.train_s or 0)} training, {duration(timing.total_s or 0)} in all"))
    if result.data.bundled:
        rows.append(("data", f"{result.data.origin}: scores are no benchmark results"))
    return rows


def _score(result: Result, score: Score) -> str:
    parts = [f"{name} {value:.3f}" for name, value in score.metrics.items()]
    parts.sort(key=lambda part: not part.startswith(f"{result.metric} "))
    if score.interval is not None:
        parts.insert(1, f"[{score.interval[0]:.3f}, {score.interval[1]:.3f}]")
    return "  ".join([*parts, f"by {score.decoding}"])


def _baselines(result: Result) -> str:
    levels = {name: result.baseline(name) for name in ("majority", "chance")}
    known = {name: level for name, level in levels.items() if level is not None}
    text = ", ".join(f"{name} {level:.3f}" for name, level in known.items())
    test = result.scores.splits.get("test")
    unclear = known and test is not None and test.interval is not None and test.interval[0] <= max(known.values())
    return text + ("  (the test score is not clearly above)" if unclear else "")
