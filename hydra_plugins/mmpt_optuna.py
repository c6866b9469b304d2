"""Hydra's sweeper for Optuna (``hydra/sweeper=optuna``): a search that can be resumed, and prunes.

Optuna is imported only once a search begins: Hydra imports this module at every start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mmpt.sweep.outcomes import Outcomes
from mmpt.sweep.search import Search, open_search, search_space


class OptunaSweeper(Sweeper):
    """Asks Optuna for settings, lets the launcher run them, and reports their validation scores to Optuna."""

    def __init__(self, params: DictConfig, n_trials: int, n_jobs: int, trial: int | None, **settings: Any) -> None:
        """Store the settings; conf/hydra/sweeper/optuna.yaml explains them."""
        self.params: dict[str, Any] = {str(key): value for key, value in params.items()}
        self.n_trials, self.n_jobs, self.settings = n_trials, max(1, n_jobs), settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher."""
        self.task_function = task_function
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        """Show the trials of earlier commands, and search until ``n_trials`` are done."""
        words = [f"{key}={value}" for key, value in self.params.items()]
        space, fixed = search_space([*words, *arguments])
        with open_search(space, fixed, **self.settings) as search:
            for batch in search.batches(self.n_trials, self.n_jobs):
                self._launch(search, batch)

    def _launch(self, search: Search, batch: Sequence[Any]) -> None:
        first = search.launched
        search.launched += len(batch)
        assert self.launcher is not None
        self.launcher.launch([search.words(trial) for trial in batch], initial_job_idx=first)
        outcomes = Outcomes(self.task_function.folder)  # type: ignore[attr-defined]
        for number, trial in enumerate(batch, start=first):
            search.tell(trial, outcomes.read(number))
