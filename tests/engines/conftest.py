"""Two machines on a switch, and what a sweep gives that nothing disturbs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines.machines import Machine, network
from tests.engines.sweeps import LONG, outcomes, run_sweep


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Machine]]:
    with network("n1", "n2") as made:
        yield made


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Outcomes of seeds 1 and 2 in one process of this machine."""
    root = tmp_path_factory.mktemp("undisturbed")
    run_sweep(root, *LONG, "seed=1,2")
    return outcomes(root)
