"""The names under which a run records: what the trainer writes, loggers show, and dashboards look for.

docs/logging.md explains each. A name in braces stands for several, such as one learning rate a parameter group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
ROUTE_ENTROPY = "routes/entropy"
METRICS = (  # by step
    LOSS,
    EPOCH,
    GRAD_NORM,
    STEP_MS,
    LEARNING_RATE,
    VALIDATION_LOSS,
    VALIDATION_SCORE,
    VALIDATION_METRIC,
    ROUTE_LOAD,
    ROUTE_MEAN,
    ROUTE_ENTROPY,
)

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
SUMMARY = (  # once, of the whole run
    TEST_SCORE,
    TEST_METRIC,
    BEST_VALIDATION_SCORE,
    TRAINABLE,
    ADAPTER_BYTES,
    MEDIAN_STEP_MS,
    TRAIN_SECONDS,
    PEAK_BYTES,
)


def summary(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a whole run under their names.

    Args:
        result: What result.json holds.

    Returns:
        Name -> number; what wasn't measured is left out.
    """
    test, primary = result["scores"]["test"], result["metric"]
    values = {TEST_METRIC.format(metric=name): value for name, value in test.items() if isinstance(value, float)}
    values |= {
        TEST_SCORE: test[primary],
        BEST_VALIDATION_SCORE: result["scores"]["validation"][primary],
        TRAINABLE: result["parameters"]["trainable"],
        ADAPTER_BYTES: result["parameters"]["bytes"],
        MEDIAN_STEP_MS: result["timing"]["step_ms_median"],
        TRAIN_SECONDS: result["timing"]["train_s"],
        PEAK_BYTES: result["memory"]["peak_bytes"],
    }
    return {name: value for name, value in values.items() if value is not None}


def pattern(name: str) -> str:
    """The regular expression of all names that a name with braces stands for.

    Args:
        name: One of the above.
    """
    return "".join(".+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", name))
