"""Trials of a search that are stopped early, because others were better at the same step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmpt.errors import MmptError
from mmpt.sweep.search import storage


class HopelessError(MmptError):
    """A trial was stopped early because the others were better at the same step."""


def reporter(sweeper: Any) -> Callable[[int, float], None] | None:
    """What a trial of a search calls at each evaluation; None where nothing is to be pruned.

    Args:
        sweeper: Hydra's configuration of the sweeper in this trial.

    Returns:
        A function of step and validation score; it raises :class:`HopelessError`.
    """
    if sweeper.get("trial") is None or not sweeper.get("prune"):
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=sweeper.startup_trials, n_min_trials=4)
    study = optuna.load_study(study_name=sweeper.study_name, storage=storage(sweeper.storage), pruner=pruner)
    frozen = study.trials[sweeper.trial]
    if frozen.state.is_finished():  # shown again, or tried again
        return None
    trial = optuna.Trial(study, frozen._trial_id)

    def report(step: int, score: float) -> None:
        trial.report(score, step)
        if trial.should_prune():
            raise HopelessError(
                f"stopped at step {step}: validation {score:.3f} is below the median of the other trials"
            )

    return report
