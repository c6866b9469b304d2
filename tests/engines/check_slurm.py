from __future__ import annotations
from collections.abc import Iterator
import pytest
from tests.engines.machines import *
from tests.engines.slurm_cluster import Slurm, slurm

@pytest.fixture(scope="module")
def cluster(machines: list[Machine]) -> Iterator[Slurm]:
    with slurm(machines) as made:
        yield made

def test_up(cluster):
    print(cluster.command("sinfo", "-Nl"))
    print(cluster.command("srun", "hostname"))
    print(cluster.history())
