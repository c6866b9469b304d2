"""Our launcher composes a combination of groups once, and its trials get what Hydra's own loader composes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from mmpt.cli import main
from tests.sweep.conftest import FEW

Plugins.instance()  # Hydra's own launcher first, whose name ours takes
from hydra_plugins.mmpt_basic import GroupLauncher  # noqa: E402


def as_plain(config: DictConfig) -> Any:
    """All of a configuration, without a name that runs do not have."""
    plain: Any = OmegaConf.to_container(config)
    del plain["hydra"]["job"]["override_dirname"]
    return plain


@pytest.mark.parametrize("more", [[], ["+mine=1"], ["method.lr={masks: 0.1}"]])
def test_every_trial_gets_what_hydra_composes(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []
    ours = GroupLauncher.load_sweep_config

    def both(launcher: GroupLauncher, master: DictConfig, words: list[str]) -> DictConfig:
        found, wanted = ours(launcher, master, words), launcher._loader.load_sweep_config(master, words)
        assert as_plain(found) == as_plain(wanted)
        assert OmegaConf.is_struct(found) == OmegaConf.is_struct(wanted)
        composed.append(words)
        return found

    monkeypatch.setattr(GroupLauncher, "load_sweep_config", both)
    words = ["method=multimask,smop", "method.lr.router=0.001,0.002", "trainer.max_steps=1", *more]
    main(["-m", *FEW, f"run.root={tmp_path}", *words, "trainer.eval_strategy=no", "data.limit_validation=8"])
    assert len(composed) == 4


def test_a_combination_of_groups_is_composed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaders: list[Any] = []
    setup = GroupLauncher.setup

    def counted(launcher: GroupLauncher, **given: Any) -> None:
        setup(launcher, **given)
        loaders.append(launcher)

    monkeypatch.setattr(GroupLauncher, "setup", counted)
    words = ["method=multimask,smop", "seed=1,2", "trainer.max_steps=1", "trainer.eval_strategy=no"]
    assert main(["-m", *FEW, f"run.root={tmp_path}", *words]) == 0
    assert len(loaders[0]._composed) == 2
