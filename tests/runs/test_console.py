from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import rich.console

from mmpt.runs.console import Console, final_rows
from mmpt.runs.result import Result

CONTENT: dict[str, Any] = {
    "task": "rte",
    "method": "multimask",
    "model": "bundled",
    "seed": 0,
    "data": {"bundled": True, "origin": "bundled miniature (synthetic)"},
    "metric": "accuracy",
    "scores": {
        "validation": {"accuracy": 0.8125, "interval": [0.7, 0.9], "decoding": "ranking"},
        "test": {"accuracy": 0.75, "interval": [0.6251, 0.85], "decoding": "ranking", "f1": 0.74},
        "test_generation": {"accuracy": 0.5, "interval": None, "decoding": "generation"},
        "majority": {"accuracy": 0.55},
        "chance": {"accuracy": 0.5},
    },
    "parameters": {"trainable": 12_345, "total": 1_000_000, "bytes": 49_600, "groups": {}},
    "timing": {"step_ms_median": 12.34, "train_s": 75.0, "total_s": 3_700.0, "examples_per_s": 100.0},
    "warnings": ["3 examples were cut"],
}


def test_final_table_says_it_all_and_ends_with_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / ("a very long name " * 12 + "end")
    out = io.StringIO()
    Console(directory, out).final_table(Result.from_dict(CONTENT))
    lines = out.getvalue().splitlines()
    text = "\n".join(lines)
    assert "12,345 of 1,000,000 parameters (1.23 %), 49.6 kB saved" in text
    assert "validation  accuracy 0.812  [0.700, 0.900]  by ranking" in text
    assert "test        accuracy 0.750  [0.625, 0.850]  f1 0.740  by ranking" in text
    assert "test        accuracy 0.500  by generation" in text
    assert "majority 0.550, chance 0.500" in text and "not clearly above" not in text
    assert "12.3 ms a step, 1 min 15 s training, 1 h 1 min in all" in text
    assert "no benchmark results" in text
    assert "warning: 3 examples were cut" in text
    assert lines[-1] == f"run directory: {directory}"


def test_a_score_near_the_majority_is_called_that(tmp_path: Path) -> None:
    test = {"accuracy": 0.6, "interval": [0.54, 0.7], "decoding": "ranking"}
    scores = {**CONTENT["scores"], "test": test, "chance": None}
    rows = dict(final_rows(Result.from_dict({**CONTENT, "scores": scores})))
    assert rows["baselines"] == "majority 0.550  (the test score is not clearly above)"


def test_real_data_bring_no_disclaimer_and_no_steps_no_step_time(tmp_path: Path) -> None:
    data = {"bundled": False, "origin": "local data"}
    timing = {**CONTENT["timing"], "step_ms_median": None}
    rows = dict(final_rows(Result.from_dict({**CONTENT, "data": data, "timing": timing})))
    assert "data" not in rows
    assert rows["time"].startswith("1 min 15 s training")


def test_progress_without_a_terminal_is_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(tmp_path, out)
    console.note("data: bundled miniature [synthetic]")
    with console.progress(total=100) as progress:
        for step in range(1, 101):
            progress.update(step, loss=1 / step, score=0.625 if step == 50 else None)
    lines = out.getvalue().splitlines()
    assert lines[0] == "data: bundled miniature [synthetic]"
    assert len(lines) == 3  # the data, the score, the end: not one a step
    assert lines[1].startswith("step 50/100  loss 0.0200  validation 0.625  ") and lines[1].endswith(" left")
    assert lines[2] == "step 100/100  loss 0.0100"  # not the score of step 50
    assert "\x1b" not in out.getvalue()


def test_slow_steps_are_shown_and_a_resumed_run_predicts_from_its_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 5.0, 11.0, 11.0])
    monkeypatch.setattr("mmpt.runs.console.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    with Console(tmp_path, out).progress(total=100, done=50) as progress:
        progress.update(51)
        progress.update(52, loss=0.5)
    assert out.getvalue() == "step 52/100  loss 0.5000  4 min 24 s left\n"


def test_progress_on_a_terminal_is_a_bar(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(tmp_path, out)
    console._console = rich.console.Console(file=out, force_terminal=True, width=120, color_system=None)
    with console.progress(total=10) as progress:
        progress.update(10, loss=0.25, score=0.5)
        for _ in range(2):
            console.warn("the loss stands still")
    text = out.getvalue()
    assert "10/10" in text and "loss 0.2500" in text and "validation 0.500" in text
    assert text.count("warning: the loss stands still") == 1


def test_a_result_of_an_older_format_is_shown_too(tmp_path: Path) -> None:
    rows = dict(final_rows(Result.from_dict({name: CONTENT[name] for name in ("task", "metric", "scores")})))
    assert rows["test"].startswith("accuracy 0.5") and rows["baselines"] == "majority 0.550, chance 0.500"
