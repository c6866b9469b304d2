"""One trial, in whatever process a launcher runs it: kept apart from others, and written to the ledger."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mmpt.errors import InUseError, MmptError
from mmpt.sweep.devices import take_share
from mmpt.sweep.isolation import isolated, keep_imported, printing_to
from mmpt.sweep.ledger import Ledger, Outcome, State, ledger_of
from mmpt.sweep.prune import HopelessError, reporter
from mmpt.sweep.table import score
from mmpt.training.memory import is_out_of_memory
from mmpt.training.settings import check, plain
from mmpt.utils.secrets import error_line, redact

if TYPE_CHECKING:
    from mmpt.config.schema import Config

ELSEWHERE = ("sweep", "run.", "logger", "hydra")
RETRY = "sweep.retry_failed=true tries it again"


@dataclass(frozen=True)
class Trial:
    """What Hydra calls for every trial; launchers send it to other processes.

    Attributes:
        folder: The sweep's folder, see :class:`mmpt.sweep.ledger.Ledger`.
        parent: Process id of the command.
        at_once: Trials that may run at the same time on this machine; None where another system decides.
    """

    folder: Path
    parent: int
    at_once: int | None = 1

    def __call__(self, composed: DictConfig) -> float | None:
        """Run one trial; an error is written to the ledger and never raised, so that the others go on.

        Returns:
            The validation score, for a sweeper; None where the trial failed or didn't run.
        """
        hydra = HydraConfig.get()
        number, words = int(hydra.job.num), task_words(list(hydra.overrides.task))
        ledger = ledger_of(self.folder)
        outcome = self._settled(ledger, number, str(OmegaConf.select(composed, "sweep.on_failure")))
        if outcome is None:
            take_share(self.folder, self.parent, self.at_once)
            outcome = self._run(ledger, Outcome(number, words, "started"), composed)
            ledger.add(outcome)
        return score(outcome)

    def _settled(self, ledger: Ledger, number: int, on_failure: str) -> Outcome | None:
        """What this sweep knows of the trial already, or a stand-in for a trial that is not to run any more."""
        ended = ledger.ended()
        if number in ended:
            return ended[number]
        if on_failure == "stop" and any(outcome.failed for outcome in ended.values()):
            return Outcome(number, "", "failed")
        return None

    def _run(self, ledger: Ledger, begun: Outcome, composed: DictConfig) -> Outcome:
        ledger.add(begun)
        clock = time.perf_counter()
        log = None if OmegaConf.select(composed, "sweep.output") == "all" else self.folder / f"{begun.number}.log"
        with isolated(), printing_to(log):
            ended = carry_out(begun, composed)
            if log is not None and ended.error is not None:
                print(f"{ended.state}: {ended.error}")
        return replace(ended, seconds=time.perf_counter() - clock, log=None if log is None else str(log))


def carry_out(begun: Outcome, composed: DictConfig) -> Outcome:
    """Check, run and judge one trial.

    Args:
        begun: Its number and words.
        composed: Its configuration, as Hydra composed it.

    Returns:
        How it ended.
    """
    directory: str | None = None
    try:
        config = check(composed)
        from mmpt.training.identity import identify  # imports torch: only once the configuration is right
        from mmpt.training.run import run_experiment

        keep_imported()
        identity = identify(config)
        directory = str(identity.directory.expanduser().absolute())
        known = earlier(config, identity.directory, identity.fingerprint)
        if known is not None and known.state in ("failed", "pruned"):
            return replace(begun, state=known.state, earlier=True, directory=directory, error=known.error)
        result = run_experiment(config, plain(config), identity, on_score=_reporter())
        resumed = known is not None and known.resumed
        return replace(
            begun,
            state="done",
            earlier=known is not None and not resumed,
            resumed=resumed,
            directory=directory,
            result=result.to_dict(),
        )
    except InUseError as error:
        return replace(begun, state="busy", directory=directory, error=str(error))
    except Exception as error:
        if not isinstance(error, MmptError):
            print(redact(traceback.format_exc()), file=sys.stderr)  # a defect, or a library's error
        state: State = "pruned" if isinstance(error, HopelessError) else "failed"
        return replace(begun, state=state, directory=directory, error=describe_failure(error))


def _reporter() -> Callable[[int, float], None] | None:
    """What a search wants to hear of each evaluation; None outside of a search."""
    sweeper = HydraConfig.get().sweeper
    if sweeper is None or "OptunaSweeper" not in str(sweeper.get("_target_")):
        return None
    return reporter(sweeper)


def earlier(config: Config, directory: Path, fingerprint: str) -> Outcome | None:
    """What an earlier command left of this very run.

    Returns:
        None for a new run, or one to be done anew; ``done``; ``failed`` with its error, unless failed runs are to be
        retried; ``started`` and ``resumed`` for one to go on with.
    """
    from mmpt.runs.record import read_status

    status = read_status(directory, fingerprint)
    if status is None or config.run.overwrite:
        return None
    if status["status"] == "done":
        return Outcome(-1, "", "done")
    if status["status"] == "failed" and status.get("error", {}).get("type") == HopelessError.__name__:
        return Outcome(-1, "", "pruned")
    if status["status"] == "failed" and not config.sweep.retry_failed:
        message = " ".join(str(status.get("error", {}).get("message", "")).split())
        return Outcome(-1, "", "failed", error=f"{message} (failed before; {RETRY})")
    return Outcome(-1, "", "started", resumed=True)


def describe_failure(error: BaseException) -> str:
    """Tell any error of a trial in one line; running out of memory with what helps."""
    text = error_line(error)
    if isinstance(error, MmptError):
        return text
    if is_out_of_memory(error):
        return (
            f"out of memory ({text.split('. ')[0][:120] or 'MemoryError'}); lower trainer.per_device_train_batch_size "
            "(raise trainer.gradient_accumulation_steps with it) or data.max_length, or run fewer trials at once"
        )
    return f"{type(error).__name__}: {text[:300]}"


def task_words(overrides: list[str]) -> str:
    """Overrides as the user would type them, without those that say where a run lies and how it is shown."""
    words = (word.lstrip("+") for word in overrides)
    return " ".join(word for word in words if not word.startswith(ELSEWHERE))
