"""Composing as the command line does, without a process of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmpt.cli import CONF
from mmpt.config.compose import compose, read_command_line
from mmpt.config.schema import Config
from mmpt.training.settings import check, find_problems


@pytest.fixture
def config_of() -> Callable[..., Config]:
    """Words of the command line -> the checked configuration."""

    def build(*words: str) -> Config:
        line = read_command_line(list(words), CONF)
        assert line.problems == []
        return check(compose(line.overrides, CONF))

    return build


@pytest.fixture
def problems_of() -> Callable[..., list[str]]:
    """Words of the command line -> every problem found."""

    def find(*words: str) -> list[str]:
        line = read_command_line(list(words), CONF)
        found = [] if line.problems else [text for _, text in find_problems(compose(line.overrides, CONF))]
        return line.problems + found

    return find
