"""The sweeper for every combination of values (``hydra/sweeper=basic``, in place of Hydra's own).

Trials of a sweep mostly differ in values of settings (words that begin with ``++``), which change nothing about the
files that a configuration is composed of. So the files of each combination of groups are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mmpt.sweep.grid import combinations

_NODE = {"_target_": "hydra_plugins.mmpt_basic.GridSweeper", "max_batch_size": None, "params": None}
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=_NODE, provider="mmpt")


class GridSweeper(Sweeper):
    """Lets the launcher run every combination."""

    def __init__(self, max_batch_size: int | None, params: DictConfig | None) -> None:
        """Store how many trials the launcher gets at a time (None: all), and values that words replace."""
        self.max_batch_size = max_batch_size
        self.params: dict[str, Any] = {str(key): value for key, value in (params or {}).items()}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher."""
        loader = cast(ConfigLoader, GroupLoader(hydra_context.config_loader))
        self.hydra_context, self.folder = replace(hydra_context, config_loader=loader), Path(config.hydra.sweep.dir)
        self.config = config
        self.parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Write ``multirun.yaml``, and run all trials.

        Raises:
            HydraException: A trial's configuration cannot be composed; none of its batch has started.
        """
        words = [f"{key}={value}" for key, value in self.params.items()]
        trials = combinations(self.parser.parse_overrides([*words, *arguments]))
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")
        size = self.max_batch_size or len(trials)
        returns = []
        for first in range(0, len(trials), size):
            batch = trials[first : first + size]
            self.validate_batch_is_legal(list({groups_of(trial): trial for trial in reversed(batch)}.values()))
            assert self.launcher is not None
            returns.append(self.launcher.launch(batch, initial_job_idx=first))
            for job in returns[-1]:
                _ = job.return_value  # raises the error of a failed one
        return returns


class GroupLoader:
    """Composes trials; a launcher asks nothing else of Hydra's loader, and may copy this one to another process."""

    def __init__(self, loader: ConfigLoader) -> None:
        """Wrap Hydra's loader."""
        self.loader, self.composed = loader, dict[tuple[str, ...], DictConfig]()

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of a trial, as Hydra's loader composes it from all of the trial's words."""
        groups = groups_of(sweep_overrides)
        if any(word[0] in "+~" for word in groups):  # the order of these and of values may matter
            return self.loader.load_sweep_config(master_config, sweep_overrides)
        if groups not in self.composed:
            self.composed[groups] = self.loader.load_sweep_config(master_config, list(groups))
        config = deepcopy(self.composed[groups])
        overrides = OverridesParser.create().parse_overrides(sweep_overrides)
        for override in overrides:
            if override.is_force_add():
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
        config.hydra.overrides.task = [one.input_line for one in overrides if not one.is_hydra_override()]
        return config


def groups_of(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a trial that are no values of settings."""
    return tuple(word for word in words if not word.startswith("++"))
