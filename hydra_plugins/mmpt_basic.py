"""Hydra's own sweeper, except that it need not compose every trial to check it; it takes the same name."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore

_NODE = {"_target_": "hydra_plugins.mmpt_basic.GroupSweeper", "max_batch_size": None, "params": None}
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=_NODE, provider="mmpt")


class GroupSweeper(BasicSweeper):
    """Checks each combination of groups once; values of settings have no files that could be missing."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose the first trial of each combination of groups.

        Raises:
            HydraException: One cannot be composed.
        """
        distinct = {tuple(word for word in words if not word.startswith("++")): words for words in reversed(batch)}
        super().validate_batch_is_legal(list(distinct.values()))
