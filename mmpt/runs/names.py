"""The names of what a run records: the trainer writes them, loggers and dashboards show them.

docs/logging.md explains each. A name in braces stands for several, such as one learning rate a parameter group.
"""

from __future__ import annotations

import re

from mmpt.runs.result import Result

LOSS = "train/loss"
EPOCH = "train/epoch"
GRAD_NORM = "train/grad_norm"
STEP_MS = "train/step_ms"
LEARNING_RATE = "lr/{group}"
VALIDATION_LOSS = "validation/loss"
VALIDATION_SCORE = "validation/score"
VALIDATION_METRIC = "validation/{metric}"
ROUTE_LOAD = "routes/load_{route}"
ROUTE_MEAN = "routes/mean_{route}"
ROUTE_OF_TASK = "routes/mean_{route}/{task}"  # of a mixture
ROUTE_ENTROPY = "routes/entropy"

MASKS = "masks/{site}"  # a heat map by evaluation
PREDICTIONS = "predictions"  # a table

TEST_SCORE = "test/score"
TEST_METRIC = "test/{metric}"
BEST_VALIDATION_SCORE = "best/validation_score"
TRAINABLE = "parameters/trainable"
ADAPTER_BYTES = "parameters/bytes"
MEDIAN_STEP_MS = "timing/step_ms_median"
TRAIN_SECONDS = "timing/train_s"
PEAK_BYTES = "memory/peak_bytes"


def summary(result: Result) -> dict[str, float]:
    """The numbers of a finished run under their names; what was not measured is left out."""
    test = result.scores.splits["test"].metrics
    values: dict[str, float | None] = {TEST_METRIC.format(metric=name): float(value) for name, value in test.items()}
    values |= {
        TEST_SCORE: result.score(),
        BEST_VALIDATION_SCORE: result.score("validation"),
        TRAINABLE: result.parameters.trainable,
        ADAPTER_BYTES: result.parameters.bytes,
        MEDIAN_STEP_MS: result.timing.step_ms_median,
        TRAIN_SECONDS: result.timing.train_s,
        PEAK_BYTES: result.memory.peak_bytes,
    }
    return {name: value for name, value in values.items() if value is not None}


def pattern(name: str) -> str:
    """The regular expression of all names that one of the above with braces stands for."""
    return "".join(".+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", name))
