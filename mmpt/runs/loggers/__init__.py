"""Where metrics go besides the run directory: W&B, TensorBoard, trackio, CSV files; several, or none.

One file a logger. The trainer uses only :class:`Loggers`; docs/logging.md lists what each one shows.
"""

from __future__ import annotations

import functools
import sys

from mmpt.config.schema import LoggerConfig
from mmpt.runs.loggers.base import Logger, Loggers, RunInfo, Say
from mmpt.runs.loggers.csv import CsvLogger
from mmpt.runs.loggers.tensorboard import TensorboardLogger
from mmpt.runs.loggers.trackio import TrackioLogger
from mmpt.runs.loggers.wandb import WandbLogger

__all__ = ["Logger", "Loggers", "RunInfo", "Say", "make_logger"]


def make_logger(config: LoggerConfig, say: Say | None = None) -> Loggers:
    """Make the loggers of a configuration; nothing is imported or contacted before they start.

    ``say`` shows one line to the user, on standard error where None.
    """
    say = say or functools.partial(print, file=sys.stderr)
    loggers: list[Logger] = [WandbLogger(config, say)] if config.wandb else []
    loggers += [TensorboardLogger()] if config.tensorboard else []
    loggers += [TrackioLogger(config)] if config.trackio else []
    loggers += [CsvLogger()] if config.csv else []
    return Loggers(loggers, say)
