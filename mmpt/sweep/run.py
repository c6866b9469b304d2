"""A sweep from its first trial to its table, with whatever launcher and sweeper Hydra is told to use."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mmpt.config.compose import CommandLine
from mmpt.errors import MmptError, RunError
from mmpt.sweep.ledger import Ledger
from mmpt.sweep.plan import plan_sweep
from mmpt.sweep.progress import Watcher
from mmpt.sweep.trial import Trial
from mmpt.utils.untrusted import one_line

ROUNDS = 2  # a trial whose process died this often has failed


def run_sweep(line: CommandLine, conf: Path, launch: Callable[[Trial], None]) -> int:
    """Run all trials, show them, and say whether all went well.

    Args:
        line: The command line.
        conf: The configuration folder.
        launch: Gives the trial function to Hydra, and returns when all trials are over.

    Returns:
        The exit code: 0 all done, 1 at least one failed or wasn't run.

    Raises:
        MmptError: The sweep can't start.
    """
    plan = plan_sweep(line, conf)
    ledger = Ledger.create(plan.root)
    watcher = Watcher(ledger, plan.total)
    trial = Trial(ledger.folder, os.getpid(), plan.at_once)
    with watcher.watching(), _importable(conf.parent), watcher.interruptible():
        for attempt in itertools.count(1):
            reason = _launch(trial, launch, watcher, plan.launcher)
            lost = watcher.lost()
            died = [begun for begun in lost if len(watcher.started[begun.number]) >= ROUNDS]
            again = reason is not None and plan.launcher == "joblib" and plan.total is not None and attempt < 99
            watcher.give_up(died if again else lost, reason or "no reason given")
            if not again and not plan.repeats:
                watcher.give_up_busy()
            if not again and not watcher.busy:
                break
            if not again:
                watcher.wait_for_busy()
    return watcher.summary()


def _launch(trial: Trial, launch: Callable[[Trial], None], watcher: Watcher, launcher: str) -> str | None:
    """Launch once; returns why the engine stopped before the end, or None.

    Raises:
        RunError: The engine stopped before any trial began.
    """
    try:
        launch(trial)
    except (MmptError, HydraException, OmegaConfBaseException, YAMLError):
        raise
    except Exception as error:  # of the engine: trials raise nothing
        watcher.poll()
        watcher.wait_for_lost()
        text = one_line(error)[:300]
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        if not watcher.lost() and not watcher.outcomes:
            raise RunError(f"hydra/launcher={launcher} can't start: {reason}") from error
        return reason
    watcher.poll()
    return None


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Let processes that a launcher starts import this very mmpt."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
