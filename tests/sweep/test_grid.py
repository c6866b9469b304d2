"""Our sweeper composes a combination of groups once, and trials get what Hydra's own loader composes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from mmpt.cli import main
from mmpt.sweep.grid import combinations
from tests.sweep.conftest import FEW

Plugins.instance()  # Hydra's own sweeper first, whose name ours takes
from hydra_plugins.mmpt_basic import GroupLoader  # noqa: E402

ONE_STEP = ["trainer.max_steps=1", "trainer.eval_strategy=no", "data.limit_validation=8"]


def as_plain(config: DictConfig) -> Any:
    """All of a configuration, without a name that runs do not have."""
    plain: Any = OmegaConf.to_container(config)
    del plain["hydra"]["job"]["override_dirname"]
    return plain


@pytest.mark.parametrize("more", [[], ["+mine=1"], ["method.lr={masks: 0.1}"]])
def test_every_trial_gets_what_hydra_composes(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []
    ours = GroupLoader.load_sweep_config

    def both(loader: GroupLoader, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        copy = pickle.loads(pickle.dumps(loader))  # as the processes of a launcher get it
        found = ours(loader, master_config, sweep_overrides)
        wanted = loader.loader.load_sweep_config(master_config, sweep_overrides)
        assert as_plain(found) == as_plain(wanted) == as_plain(ours(copy, master_config, sweep_overrides))
        assert OmegaConf.is_struct(found) == OmegaConf.is_struct(wanted)
        composed.append(sweep_overrides)
        return found

    monkeypatch.setattr(GroupLoader, "load_sweep_config", both)
    words = ["method=multimask,smop", "method.lr.router=0.001,0.002", *ONE_STEP, *more]
    main(["-m", *FEW, f"run.root={tmp_path}", *words])
    assert len(composed) == 6  # one of each method before the first trial


def test_a_combination_of_groups_is_composed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaders: list[GroupLoader] = []
    make = GroupLoader.__init__

    def counted(made: GroupLoader, loader: ConfigLoader) -> None:
        make(made, loader)
        loaders.append(made)

    monkeypatch.setattr(GroupLoader, "__init__", counted)
    assert main(["-m", *FEW, f"run.root={tmp_path}", "method=multimask,smop", "seed=1,2", *ONE_STEP]) == 0
    assert [len(loader.composed) for loader in loaders] == [2]


@pytest.mark.parametrize("size", ["1", "2", "null"])
def test_trials_reach_the_launcher_in_batches(size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", *FEW, f"run.root={tmp_path}", f"hydra.sweeper.max_batch_size={size}", "seed=1,2,3", *ONE_STEP]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert [f"trial {number}/3" in said for number in (1, 2, 3)] == [True] * 3 and "3 trials done" in said


@pytest.mark.parametrize("size", ["0", "-1", "many"])
def test_a_wrong_batch_size_stops_the_sweep(size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *FEW, f"run.root={tmp_path / 'r'}", f"hydra.sweeper.max_batch_size={size}", "seed=1,2"]) == 2
    assert f"max_batch_size={size} must be a whole number of at least 1" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["a=1,2", "b=3"], [["a=1", "b=3"], ["a=2", "b=3"]]),
        (["a=1,2", "++b=x,y"], [["a=1", "++b=x"], ["a=1", "++b=y"], ["a=2", "++b=x"], ["a=2", "++b=y"]]),
        (["a=1,2", "b=3", "a=4"], [["a=4", "b=3"]]),  # a word of the command line after one of the definition
        (["a=range(1,3)", "~b"], [["a=1", "~b=null"], ["a=2", "~b=null"]]),
        (["a=[1,2],[3]", "b='x, y'"], [["a=[1,2]", "b='x, y'"], ["a=[3]", "b='x, y'"]]),
        ([], [[]]),
    ],
)
def test_combinations(words: list[str], wanted: list[list[str]]) -> None:
    assert combinations(OverridesParser.create().parse_overrides(words)) == wanted
