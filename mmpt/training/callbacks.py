"""What a run records while it trains: metrics, learning rates by group, routes, masks, step times, progress."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mmpt.runs import names

if TYPE_CHECKING:
    from mmpt.runs.console import Progress
    from mmpt.runs.loggers import Loggers
    from mmpt.runs.record import RunRecord


class Journal(TrainerCallback):
    """Writes what the trainer logs to metrics.jsonl, the logger and the console, and times steps."""

    def __init__(
        self,
        record: RunRecord,
        logger: Loggers,
        clock: Callable[[], float] = time.perf_counter,
        on_score: Callable[[int, float], None] | None = None,
    ) -> None:
        """Keep where to write, the clock of this trial, in seconds, and who wants to hear of validation scores."""
        self.record, self.logger, self.clock, self.on_score = record, logger, clock, on_score
        self.progress: Progress | None = None
        self.step_seconds = array("d")
        self._told = 0  # of step_seconds
        self._began: float | None = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values of a step to metrics.jsonl and the logger."""
        self.record.log(step, values)
        self.logger.log(step, values)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of one optimizer step."""
        self._began = self.clock()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the clock, and show progress."""
        if self._began is not None:
            self.step_seconds.append(self.clock() - self._began)
        if self.progress is not None:
            self.progress.update(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Take over the trainer's own log lines, with the learning rate of every group."""
        state.log_history.clear()  # metrics.jsonl has them, and this would grow in memory and in every checkpoint
        if not logs or "loss" not in logs:
            return
        values = {names.LOSS: logs["loss"], names.EPOCH: state.epoch or 0.0}
        if "grad_norm" in logs:
            values[names.GRAD_NORM] = logs["grad_norm"]
        for group in optimizer.param_groups if optimizer is not None else []:
            values[names.LEARNING_RATE.format(group=group["name"])] = group["lr"]
        if self.step_seconds[self._told :]:
            values[names.STEP_MS] = 1000 * mean(self.step_seconds[self._told :])
            self._told = len(self.step_seconds)
        self.write(state.global_step, values)
        if self.progress is not None:
            self.progress.update(state.global_step, loss=logs["loss"])

    def median_step_ms(self) -> float | None:
        """Median milliseconds of a step; the first, which warms up, is left out where there are others."""
        seconds = self.step_seconds[1:] or self.step_seconds
        return 1000 * median(seconds) if seconds else None
