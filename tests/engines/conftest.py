"""Two machines on a switch, for each test that asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.machines import Machine, network


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Machine]]:
    with network("n1", "n2") as made:
        yield made
