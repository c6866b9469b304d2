"""What a training run tells its loggers, in short."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpt.config.schema import LoggerConfig
from mmpt.runs.loggers import Loggers, RunInfo, make_logger

RESOLVED = {"task": {"name": "rte"}, "seed": 0}


def start(directory: Path, config: LoggerConfig, said: list[str], resume_step: int | None = None) -> Loggers:
    """Loggers that have started."""
    directory.mkdir(exist_ok=True)
    loggers = make_logger(config, said.append)
    loggers.start(RunInfo("rte-1", "rte", RESOLVED, directory, ["smoke"], resume_step))
    return loggers


def steps(loggers: Loggers, *numbers: int) -> None:
    """Training and evaluation of some steps; every step is evaluated."""
    for step in numbers:
        loggers.log(step, {"train/loss": 1.0 / step})
        loggers.log(step, {"validation/score": step / 10})
        loggers.heatmap("masks/decoder", np.full((2, 3, 4), step / 10), step)


def end(loggers: Loggers, directory: Path) -> None:
    """What comes after training."""
    loggers.table("predictions", ["source", "prediction"], [["a | b,\nc", "entailment"], ["d", "x"]])
    (directory / "adapter").mkdir(exist_ok=True)
    (directory / "adapter" / "adapter.json").write_text("{}", encoding="utf-8")
    loggers.artifact(directory / "adapter", "rte-adapter", "adapter")
    loggers.summary({"test/score": 0.5, "parameters/trainable": 12})
    loggers.finish("done")
