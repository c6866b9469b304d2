"""Several loggers at once, or none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.config.schema import LoggerConfig
from mmpt.errors import ConfigError
from mmpt.runs.loggers import Loggers, RunInfo, make_logger
from mmpt.runs.loggers.base import draw_masks
from mmpt.runs.loggers.csv import CsvLogger
from tests.runs.loggers.example import end, start, steps

ROOT = Path(__file__).parents[3]


class Broken:
    """A backend that starts and then fails at everything."""

    label = "broken"

    def start(self, run: RunInfo) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def fail(*args: Any) -> None:
            raise OSError(f"no {name}")

        return fail


def test_one_that_fails_is_told_once_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    loggers = Loggers([Broken(), CsvLogger()], said.append)
    loggers.start(RunInfo("x", None, {}, tmp_path))
    steps(loggers, 1, 2, 3)
    end(loggers, tmp_path)
    assert len([line for line in said if "logging failed (OSError: no log); the run continues" in line]) == 1
    assert all(line.startswith("broken: ") for line in said)
    assert len((tmp_path / "csv" / "metrics.csv").read_text().splitlines()) == 4


def test_an_error_on_purpose_stops_the_run(tmp_path: Path) -> None:
    class Strict(Broken):
        def start(self, run: RunInfo) -> None:
            raise ConfigError("no key")

    with pytest.raises(ConfigError, match="no key"):
        Loggers([CsvLogger(), Strict()], print).start(RunInfo("x", None, {}, tmp_path))


def test_none_writes_nothing(tmp_path: Path) -> None:
    loggers = start(tmp_path, LoggerConfig(), [])
    steps(loggers, 1)
    end(loggers, tmp_path)
    assert loggers.loggers == ()
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}


def test_making_loggers_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mmpt.config.schema import LoggerConfig\nfrom mmpt.runs.loggers import make_logger\n"
        "make_logger(LoggerConfig(wandb=True, csv=True, tensorboard=True, trackio=True))\n"
        "assert not {'wandb', 'torch', 'trackio', 'tensorboard', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, "WANDB_MODE": "offline"})


def test_make_logger_says_on_standard_error_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_logger(LoggerConfig(wandb=True)).start(RunInfo("x", None, {}, tmp_path))  # conftest.py switches W&B off
    assert "switched off" in capsys.readouterr().err


def test_masks_are_drawn_by_value() -> None:
    masks = np.zeros((3, 10, 6))
    closed = draw_masks(masks)
    assert closed.dtype == np.uint8 and closed.shape[2] == 4
    masks[1] = 1.0
    assert (draw_masks(masks) != closed).any()
