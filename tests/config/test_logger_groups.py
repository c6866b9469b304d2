from __future__ import annotations

from collections.abc import Callable

import pytest

from mmpt.cli import main
from mmpt.config import rules
from mmpt.config.schema import Config
from mmpt.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], {"wandb"}),
        (["logger=csv"], {"csv"}),
        (["logger=none"], set()),
        (["logger=[wandb,csv]"], {"wandb", "csv"}),
        (["logger=[csv,none]"], {"csv"}),
        (["logger.csv=true"], {"wandb", "csv"}),
        (["logger=none", "logger.csv=true"], {"csv"}),
    ],
)
def test_loggers_are_chosen_by_group(words: list[str], chosen: set[str], config_of: Callable[..., Config]) -> None:
    logger = config_of(*words).logger
    assert {name for name in ("wandb", "tensorboard", "trackio", "csv") if getattr(logger, name)} == chosen


def test_several_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logger=[csv,wandb]", "logger.project=mine", "--cfg", "job"]) == 0
    assert main(["logger=[csv,wandbb]", "--cfg", "job"]) == 2
    assert (
        'logger=wandbb does not exist; choose from: csv, none, tensorboard, trackio, wandb; did you mean "wandb"?'
        in (capsys.readouterr().err)
    )


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_missing_package_is_named_with_its_install_line(
    name: str, config_of: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"logger={name} needs a package .*pip install .*'\.\[{name}\]'"):
        config_of(f"logger=[csv,{name}]")
