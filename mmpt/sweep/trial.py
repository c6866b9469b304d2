"""One trial, in whatever process a launcher runs it: isolated from the others, its outcome written for all to read."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mmpt.errors import InUseError, MmptError
from mmpt.runs.failures import TrialRecord, clear_failure, record_failure
from mmpt.runs.record import read_status
from mmpt.sweep.isolation import claim_share, freeze_imported, isolated, printing_to
from mmpt.sweep.outcomes import STOP, Outcome, Outcomes, TrialPruned, trial_words, unresolved
from mmpt.training.memory import is_out_of_memory
from mmpt.training.settings import check, plain
from mmpt.utils.secrets import error_line, redact

PRUNED = (TrialPruned.__name__, "HopelessError")  # the second by earlier versions
RETRY = "sweep.retry_failed=true tries it again"


@dataclass(frozen=True)
class Trial:
    """The function that Hydra calls for every trial; launchers send it to other processes."""

    folder: Path  # of the sweep, see mmpt.sweep.outcomes.Outcomes
    parent: int  # process id of the command
    at_once: int | None = 1  # trials at once on this machine; None where another system decides

    def __call__(self, composed: DictConfig) -> float | None:
        """Run one trial; an error is written down and never raised, so that the others run.

        Returns the validation score, for a sweeper; None where the trial failed or did not run.
        """
        hydra = HydraConfig.get()
        outcomes, number = Outcomes(self.folder), int(hydra.job.num)
        known = outcomes.read(number)  # by an earlier launch of this sweep
        if known is not None and known.ended:
            return known.score()
        if OmegaConf.select(composed, "sweep.on_failure") == "stop" and (self.folder / STOP).exists():
            return None
        claim_share(self.folder, self.parent, self.at_once)
        record = TrialRecord.of(trial_words(list(hydra.overrides.task)), unresolved(composed))
        outcome = self._run(Outcome(number, trial=record), composed, outcomes)
        outcomes.write(outcome)
        return outcome.score()

    def _run(self, begun: Outcome, composed: DictConfig, outcomes: Outcomes) -> Outcome:
        outcomes.write(begun)
        clock = time.perf_counter()
        log = None if OmegaConf.select(composed, "sweep.output") == "all" else self.folder / f"{begun.number}.log"
        with isolated(), printing_to(log):
            outcome = carry_out(begun, composed, outcomes)
            if log is not None and outcome.error is not None:
                print(f"{outcome.state}: {outcome.error}")
        return replace(outcome, seconds=time.perf_counter() - clock, log=None if log is None else str(log))


def carry_out(begun: Outcome, composed: DictConfig, outcomes: Outcomes) -> Outcome:
    """Check and run one trial; returns how it ended. The run directory is written down as soon as it is known."""
    try:
        config = check(composed)
        from mmpt.training.identity import identify  # imports torch: only once the configuration is right
        from mmpt.training.run import run_experiment

        freeze_imported()
        identity = identify(config)
        directory = str(identity.directory.expanduser().absolute())
        begun = replace(begun, directory=directory, fingerprint=identity.fingerprint)
        outcomes.write(begun)
        status = None if config.run.overwrite else read_status(identity.directory, identity.fingerprint)
        state = status and status["status"]
        if status is not None and state == "failed":
            before = status.get("error", {})
            if before.get("type") in PRUNED:
                return replace(begun, state="pruned", earlier=True)
            if not config.sweep.retry_failed:
                text = f"{' '.join(str(before.get('message', '')).split())} (failed before; {RETRY})"
                return replace(begun, state="failed", earlier=True, error=text)
        result = run_experiment(config, plain(config), identity, on_score=_reporter())
        clear_failure(outcomes.root, begun.trial)
        resumed = state is not None and state != "done"
        return replace(begun, state="done", earlier=state == "done", resumed=resumed, result=result)
    except InUseError as error:
        return replace(begun, state="busy", error=str(error))
    except TrialPruned as error:
        return replace(begun, state="pruned", error=str(error))
    except Exception as error:
        if not isinstance(error, MmptError):
            print(redact(traceback.format_exc()), file=sys.stderr)  # a defect, or a library's error
        failed = replace(begun, state="failed", error=describe_failure(error))
        record_without_directory(failed, outcomes)
        return failed


def record_without_directory(failed: Outcome, outcomes: Outcomes) -> None:
    """Record a failed trial, unless its run directory tells of it."""
    if failed.directory is not None and read_status(Path(failed.directory), failed.fingerprint or "") is not None:
        clear_failure(outcomes.root, failed.trial)
    else:
        record_failure(outcomes.root, replace(failed.trial, error=redact(failed.error or "")))


def _reporter() -> Callable[[int, float], None] | None:
    """What the trial of a search calls at each evaluation; None outside of a search."""
    sweeper = HydraConfig.get().sweeper
    if sweeper is None or sweeper.get("trial") is None or not sweeper.get("prune"):
        return None
    from mmpt.sweep.search import reporter

    return reporter(sweeper)


def describe_failure(error: BaseException) -> str:
    """Describe any error of a trial in one line; running out of memory with what helps."""
    text = error_line(error)
    if isinstance(error, MmptError):
        return text
    if is_out_of_memory(error):
        return (
            f"out of memory ({text.split('. ')[0][:120] or 'MemoryError'}); lower trainer.per_device_train_batch_size "
            "(raise trainer.gradient_accumulation_steps with it) or data.max_length, or run fewer trials at once"
        )
    return f"{type(error).__name__}: {text[:300]}"
