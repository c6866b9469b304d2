"""A sweep from its first trial to its table, with whatever launcher and sweeper the command names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mmpt.config.compose import CommandLine
from mmpt.errors import MmptError, RunError
from mmpt.sweep.isolation import isolated
from mmpt.sweep.outcomes import Outcomes
from mmpt.sweep.plan import Plan, plan_sweep
from mmpt.sweep.progress import Progress
from mmpt.sweep.trial import Trial
from mmpt.utils.untrusted import one_line

DEATHS = 2  # a trial whose process died this often has failed
LAUNCHES = 99


def run_sweep(line: CommandLine, conf: Path, launch: Callable[[Trial], None]) -> int:
    """Run all trials, and show them; returns the exit code: 1 where at least one failed or was not run.

    ``launch`` gives the trial function to Hydra, and returns when all trials are over.
    """
    plan = plan_sweep(line, conf)
    outcomes = Outcomes.create(plan.root)
    progress = Progress(outcomes, plan)
    trial = Trial(outcomes.folder, os.getpid(), plan.at_once)
    try:
        with progress.shown(), isolated():
            parts = [str(conf.parent), os.environ.get("PYTHONPATH")]  # for processes that a launcher starts
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, parts))
            for count in itertools.count(1):
                if not _launch(trial, launch, progress, plan, last=count >= LAUNCHES):
                    break
        return progress.summary()
    finally:
        outcomes.clear()


def _launch(trial: Trial, launch: Callable[[Trial], None], progress: Progress, plan: Plan, last: bool) -> bool:
    """Launch what has not ended; whether to launch again, for trials that died or whose runs others worked on."""
    reason = None
    try:
        launch(trial)
    except (MmptError, HydraException, OmegaConfBaseException, YAMLError):
        raise
    except Exception as error:  # of the engine: trials raise nothing
        reason = f"{type(error).__name__}: {one_line(error)[:300]}".removesuffix(": ")
        if not progress.lost() and not progress.ended:
            raise RunError(f"hydra/launcher={plan.launcher} cannot start: {reason}") from error
    restarts = plan.launcher == "joblib" and plan.total is not None  # it loses all trials when one process dies
    again = reason is not None and restarts and not last
    lost = progress.lost()
    progress.fail(progress.died_often(lost, DEATHS) if again else lost, reason or "no reason given")
    if not again and not plan.repeats:
        progress.fail(progress.in_state("busy"))
    if not again and progress.in_state("busy"):
        progress.wait_for_busy()
        return True
    return again
