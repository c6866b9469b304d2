"""Hydra's own sweeper and launcher, except that a combination of groups is composed once; they take the same names.

Trials of a sweep mostly differ in values of settings (words that begin with ``++``), which change nothing about the
files that a configuration is composed of.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

_NODE = {"_target_": "hydra_plugins.mmpt_basic.GroupSweeper", "max_batch_size": None, "params": None}
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=_NODE, provider="mmpt")
_LAUNCHER = {"_target_": "hydra_plugins.mmpt_basic.GroupLauncher"}
ConfigStore.instance().store(group="hydra/launcher", name="basic", node=_LAUNCHER, provider="mmpt")


def groups_of(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a trial that are no values of settings."""
    return tuple(word for word in words if not word.startswith("++"))


class GroupSweeper(BasicSweeper):
    """Checks each combination of groups once; values of settings have no files that could be missing."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose the first trial of each combination of groups.

        Raises:
            HydraException: One cannot be composed.
        """
        super().validate_batch_is_legal(list({groups_of(words): words for words in reversed(batch)}.values()))


class GroupLauncher(BasicLauncher):
    """Composes each combination of groups once; every trial gets a copy with its own values."""

    def setup(self, *, hydra_context: HydraContext, **more: Any) -> None:
        """See the base class."""
        super().setup(hydra_context=replace(hydra_context, config_loader=cast(Any, self)), **more)
        self._loader, self._composed = hydra_context.config_loader, dict[tuple[str, ...], DictConfig]()

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of a trial, as Hydra's loader composes it from all of the trial's words."""
        groups = groups_of(sweep_overrides)
        if any(word[0] in "+~" for word in groups):  # the order of these and of values may matter
            return self._loader.load_sweep_config(master_config, sweep_overrides)
        if groups not in self._composed:
            self._composed[groups] = self._loader.load_sweep_config(master_config, list(groups))
        config = deepcopy(self._composed[groups])
        overrides = OverridesParser.create().parse_overrides(sweep_overrides)
        for override in overrides:
            if override.is_force_add():
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
        config.hydra.overrides.task = [one.input_line for one in overrides if not one.is_hydra_override()]
        return config
