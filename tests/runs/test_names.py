from __future__ import annotations

import re
from pathlib import Path

from mmpt.runs import names
from mmpt.runs.result import Result

ROOT = Path(__file__).parents[2]


def test_the_document_explains_every_name() -> None:
    text = (ROOT / "docs" / "logging.md").read_text(encoding="utf-8")
    for name in (value for key, value in vars(names).items() if key.isupper()):
        assert f"`{name}`" in text, name


def test_a_pattern_matches_what_its_name_stands_for_and_nothing_else() -> None:
    assert re.fullmatch(names.pattern(names.ROUTE_LOAD), names.ROUTE_LOAD.format(route=11))
    assert not re.fullmatch(names.pattern(names.ROUTE_LOAD), names.ROUTE_MEAN.format(route=1))
    assert re.fullmatch(names.pattern("a.b"), "a.b") and not re.fullmatch(names.pattern("a.b"), "axb")
    assert not re.fullmatch(names.pattern(names.LEARNING_RATE), "lr/")


def test_summary_leaves_out_what_was_not_measured() -> None:
    result = {
        "metric": "accuracy",
        "scores": {
            "test": {"accuracy": 0.5, "f1": 0.25, "interval": [0.4, 0.6], "decoding": "ranking"},
            "validation": {"accuracy": 0.75},
        },
        "parameters": {"trainable": 12, "bytes": 48},
        "timing": {"step_ms_median": None, "train_s": 2.0},
        "memory": {"peak_bytes": 7},
    }
    assert names.summary(Result.from_dict(result)) == {
        "test/accuracy": 0.5,
        "test/f1": 0.25,
        "test/score": 0.5,
        "best/validation_score": 0.75,
        "parameters/trainable": 12,
        "parameters/bytes": 48,
        "timing/train_s": 2.0,
        "memory/peak_bytes": 7,
    }
