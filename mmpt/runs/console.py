"""What a run shows: a first line, progress, the final figures, and where it all lies."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from mmpt.utils.text import duration, size_text
from mmpt.utils.untrusted import printable

PLAIN_SECONDS = 10.0  # between two lines of progress where no bar can be drawn


class Progress:
    """How far training is: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, console: Console, total: int, done: int, bar: RichProgress | None) -> None:
        """Begin at a step; use :meth:`Console.progress`.

        Args:
            console: Where lines go.
            total: Steps in all.
            done: Steps an earlier process did.
            bar: The bar, None where lines are wanted.
        """
        self._console = console
        self._total = total
        self._first = self._step = done
        self._bar = bar
        self._began = self._shown = time.monotonic()
        self._loss = self._score = ""
        if bar is not None:
            self._task = bar.add_task("training", total=total, completed=done, loss="", score="")

    def update(self, step: int, *, loss: float | None = None, score: float | None = None) -> None:
        """Show a step.

        Args:
            step: Optimizer steps so far.
            loss: Training loss; the last one stays where None.
            score: A new score of the validation split; it is always worth a line.
        """
        if loss is not None:
            self._loss = f"loss {loss:.4f}"
        if score is not None:
            self._score = f"validation {score:.3f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=self._loss, score=self._score)
            return
        now = time.monotonic()
        ended = step == self._total and self._step < step
        self._step = step
        if score is not None or ended or now - self._shown >= PLAIN_SECONDS:
            self._shown = now
            left = (now - self._began) / max(step - self._first, 1) * (self._total - step)
            parts = [f"step {step}/{self._total}", self._loss, self._score, f"{duration(left)} left"]
            self._console.note("  ".join(part for part in parts if part))


class Console:
    """Everything a run prints, so that it reads as one text."""

    def __init__(self, directory: Path, file: TextIO | None = None, label: str = "") -> None:
        """Choose where to print.

        Args:
            directory: The run directory, named at the end.
            file: A text stream; standard output where None.
            label: Begins every line, where several trials print in turns; there is no bar then.
        """
        self._directory = directory
        self._label = label
        self._console = rich.console.Console(file=file if file is not None else sys.stdout, highlight=False)

    def first_line(self, *, task: str, method: str, model: str, seed: int, origin: str) -> None:
        """Say what is about to run.

        Args:
            task: Name of the task.
            method: Name of the method.
            model: Name of the backbone.
            seed: The seed.
            origin: Where the data come from.
        """
        self.note(f"mmpt: {task} with {method} on {model}, seed {seed}; data: {origin}")

    def note(self, text: str) -> None:
        """Print a line as it is, whatever the width of the terminal."""
        self._console.print(printable(self._label + text), markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line the user should act on."""
        self._console.print(printable(f"{self._label}warning: {text}"), style="yellow", markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, total: int, done: int = 0) -> Iterator[Progress]:
        """Show progress while the block runs; notes and warnings appear above the bar.

        Args:
            total: Steps in all.
            done: Steps an earlier process did.

        Yields:
            What to tell about each step.
        """
        if self._label or not self._console.is_terminal:
            yield Progress(self, total, done, None)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[score]}"),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self._console) as bar:
            yield Progress(self, total, done, bar)

    def final_table(self, result: Mapping[str, Any]) -> None:
        """Print the figures of a finished run, what to do next, and where the run lies.

        Args:
            result: A complete result (``result.schema.json``).
        """
        self.note("")
        self.note(f"{result['task']} with {result['method']} on {result['model']}, seed {result['seed']}")
        for name, value in final_rows(result):
            self.note(f"  {name:<12}{value}")
        for warning in result["warnings"]:
            self.warn(warning)
        self.note("next:")
        for command in next_commands(result, self._directory):
            self.note(f"  {command}")
        self.note(f"run directory: {self._directory}")


def final_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and figures of each line of the final table.

    Args:
        result: A complete result.

    Returns:
        Pairs of a short name and a text.
    """
    metric, scores, parameters = result["metric"], result["scores"], result["parameters"]
    share = 100 * parameters["trainable"] / max(parameters["total"], 1)
    rows = [
        (
            "trainable",
            f"{parameters['trainable']:,} of {parameters['total']:,} parameters ({share:.2f} %), "
            f"{size_text(parameters['bytes'])} saved",
        )
    ]
    for split, score in scores.items():
        if split not in ("majority", "chance"):
            rows.append((split.split("_")[0], _score(metric, score)))
    rows.append(("baselines", _baselines(metric, scores)))
    timing = result["timing"]
    step = timing["step_ms_median"]
    rows.append(
        (
            "time",
            ("" if step is None else f"{step:.1f} ms a step, ")
            + f"{duration(timing['train_s'])} training, {duration(timing['total_s'])} in all",
        )
    )
    if result["data"]["bundled"]:
        rows.append(("data", f"{result['data']['origin']}: scores are no benchmark results"))
    return rows


def next_commands(result: Mapping[str, Any], directory: Path) -> list[str]:
    """Three commands that follow from a finished run.

    Args:
        result: A complete result.
        directory: The run directory.

    Returns:
        Shell commands, for the project's folder.
    """
    task, method = result["task"], result["method"]
    other = "prefix" if method != "prefix" else "multimask"
    return [
        f"python -m mmpt.predict {shlex.quote(str(directory))} --input FILE.jsonl",
        f"python train.py task={task} method={other}",
        f"python train.py task={task} method={method} data=local data.dir=DIR",
    ]


def _score(metric: str, score: Mapping[str, Any]) -> str:
    parts = [f"{metric} {score[metric]:.3f}"]
    if score["interval"] is not None:
        low, high = score["interval"]
        parts.append(f"[{low:.3f}, {high:.3f}]")
    parts += [f"{name} {value:.3f}" for name, value in score.items() if name not in (metric, "interval", "decoding")]
    return "  ".join([*parts, f"by {score['decoding']}"])


def _baselines(metric: str, scores: Mapping[str, Any]) -> str:
    majority, chance, test = scores["majority"], scores["chance"], scores["test"]
    text = f"majority {majority[metric]:.3f}"
    if chance is not None:
        text += f", chance {chance[metric]:.3f}"
    best = max(majority[metric], chance[metric] if chance is not None else majority[metric])
    if test["interval"] is not None and test["interval"][0] <= best:
        text += "  (the test score is not clearly above)"
    return text
