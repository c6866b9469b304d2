"""Sweeps on a Ray cluster of two machines, one of which dies."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.machines import HEAD, Machine, wait_for
from tests.engines.sweeps import LONG, finish, outcomes, run_sweep, start_sweep, trial_lines, wait_until_in_the_middle

PORT = 6379
RAY = ["hydra/launcher=ray", f"hydra.launcher.init.address={HEAD}:{PORT}"]
SEEDS = "seed=1,2"


def ray_start(*words: str) -> list[str]:
    program = str(Path(sys.executable).parent / "ray")
    fixed = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
    return [program, "start", *fixed, *words]


@pytest.fixture(scope="module")
def head(machines: list[Machine]) -> Iterator[None]:
    """The cluster's first machine, which the tests run on."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs the extra ray: pip install -c constraints.txt -e '.[ray]'")
    words = [
        "--head",
        f"--node-ip-address={HEAD}",
        f"--port={PORT}",
        "--include-dashboard=false",
        "--temp-dir=/run/ray",
    ]
    process = subprocess.Popen(ray_start(*words), stdout=subprocess.DEVNULL)
    try:
        wait_for("Ray's head", lambda: alive() == {HEAD}, 120)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def second(head: None, machines: list[Machine]) -> Iterator[Machine]:
    """The other machine, which has joined the cluster."""
    machine = machines[0]
    words = [f"--address={HEAD}:{PORT}", f"--node-ip-address={machine.address}"]
    machine.start(*ray_start(*words), stdout=subprocess.DEVNULL)
    wait_for("two machines in Ray", lambda: alive() == {HEAD, machine.address}, 120)
    yield machine
    machine.power_off()
    wait_for("Ray's note that one is gone", lambda: alive() == {HEAD}, 60)


def alive() -> set[str]:
    """Addresses of the machines that Ray counts as alive."""
    code = (
        "import ray, sys; ray.init(sys.argv[1], logging_level='error', log_to_driver=False)\n"
        "print(*[node['NodeManagerAddress'] for node in ray.nodes() if node['Alive']])"
    )
    done = subprocess.run([sys.executable, "-c", code, f"{HEAD}:{PORT}"], capture_output=True, text=True)
    return set(done.stdout.split())


def test_a_machine_that_dies_in_the_middle(second: Machine, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    process = start_sweep(tmp_path, *LONG, *RAY, SEEDS)
    wait_until_in_the_middle(tmp_path, process, 2)
    assert any("ray::" in Path(f"/proc/{pid}/cmdline").read_text() for pid in second.pids())
    second.power_off()
    output = finish(process)
    assert len(trial_lines(output)) == 2 and output.count("resumed") == 1, output
    assert outcomes(tmp_path) == undisturbed


def test_without_retries_the_same_command_ends_the_sweep(
    second: Machine, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    words = [*LONG, *RAY, "+hydra.launcher.remote.max_retries=0", SEEDS]
    process = start_sweep(tmp_path, *words)
    wait_until_in_the_middle(tmp_path, process, 2)
    second.power_off()
    output = finish(process, exit_code=1)
    assert len(trial_lines(output)) == 1 and "ended without a result" in output
    again = run_sweep(tmp_path, *words)
    assert again.count("done before") == 1 and again.count("resumed") == 1
    assert outcomes(tmp_path) == undisturbed
