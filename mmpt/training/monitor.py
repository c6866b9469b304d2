"""What a run records while it trains: metrics, learning rates, routes, masks, step times, progress."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from statistics import mean, median

from torch.optim import Optimizer

from mmpt.methods.base import Method
from mmpt.runs import names
from mmpt.runs.console import Progress
from mmpt.runs.loggers import Loggers
from mmpt.runs.record import RunRecord


class Monitor:
    """Writes to metrics.jsonl, the loggers and the console, and times steps."""

    def __init__(
        self, record: RunRecord, logger: Loggers, on_score: Callable[[int, float], None] | None = None
    ) -> None:
        """Set where to write, and who is called with step and validation score at each evaluation."""
        self.record, self.logger, self.on_score = record, logger, on_score
        self.progress: Progress | None = None
        self.step_seconds = array("d")
        self._logged = 0  # of step_seconds
        self._began = 0.0

    def begin_step(self) -> None:
        """Start the clock of an optimizer step."""
        self._began = time.perf_counter()

    def end_step(self, step: int) -> None:
        """Stop the clock, and show progress."""
        self.step_seconds.append(time.perf_counter() - self._began)
        if self.progress is not None:
            self.progress.update(step)

    def log_training(self, step: int, epoch: float, loss: float, norm: float | None, optimizer: Optimizer) -> None:
        """Write a line of training metrics; ``norm`` is the gradient's, where it is clipped."""
        values = {names.LOSS: loss, names.EPOCH: epoch}
        if norm is not None:
            values[names.GRAD_NORM] = norm
        for group in optimizer.param_groups:
            values[names.LEARNING_RATE.format(group=group["name"])] = group["lr"]
        if seconds := self.step_seconds[self._logged :]:
            values[names.STEP_MS] = 1000 * mean(seconds)
            self._logged = len(self.step_seconds)
        self._write(step, values)
        if self.progress is not None:
            self.progress.update(step, loss=loss)

    def log_evaluation(self, step: int, values: Mapping[str, float], method: Method) -> None:
        """Write validation metrics and, of methods with masks, their values."""
        self._write(step, values)
        for site, mask in method.mask_values().items():
            self.logger.heatmap(names.MASKS.format(site=site), mask.cpu().numpy(), step)
        score = values[names.VALIDATION_SCORE]
        if self.progress is not None:
            self.progress.update(step, score=score)
        if self.on_score is not None:
            self.on_score(step, score)

    def median_step_ms(self) -> float | None:
        """Median milliseconds of a step; the first, which warms up, is left out where there are others."""
        seconds = self.step_seconds[1:] or self.step_seconds
        return 1000 * median(seconds) if seconds else None

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        self.record.log(step, values)
        self.logger.log(step, values)
