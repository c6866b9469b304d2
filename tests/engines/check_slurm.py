"""Sweeps on a real Slurm of two machines, one of which has its jobs taken away, or dies."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.machines import Machine
from tests.engines.slurm_cluster import Slurm, missing, slurm
from tests.engines.sweeps import (
    EVAL_STEPS,
    LONG,
    SHORT,
    finish,
    outcomes,
    run_sweep,
    start_sweep,
    trial_lines,
    wait_until_in_the_middle,
)

SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=low", "hydra.launcher.timeout_min=30"]
SLURM += ["hydra.launcher.cpus_per_task=1"]
SEEDS = "seed=1,2"


@pytest.fixture(scope="module")
def cluster(machines: list[Machine]) -> Iterator[Slurm]:
    if programs := missing():
        pytest.skip(f"needs {', '.join(programs)}: apt-get could not install Slurm")
    with slurm(machines) as made:
        yield made


@pytest.fixture
def begun(cluster: Slurm, tmp_path: Path) -> subprocess.Popen[str]:
    """A sweep of two trials, each in the middle of its training on a machine of its own."""
    process = start_sweep(tmp_path, *LONG, *SLURM, SEEDS)
    wait_until_in_the_middle(tmp_path, process, 2)
    return process


def job_on(cluster: Slurm, machine: Machine) -> str:
    return next(job for job, name in cluster.running() if name == machine.name)


def resumed_at(root: Path) -> list[int]:
    """Steps from which trials were resumed, as their logs say."""
    logs = "".join(path.read_text() for path in root.glob(".sweeps/*/*.log"))
    return [int(step) for step in re.findall(r"from step (\d+)", logs)]


def test_an_array_of_six_trials_of_which_one_fails(cluster: Slurm, tmp_path: Path) -> None:
    process = start_sweep(tmp_path, *SHORT, *SLURM, "method.lr.prefix=0.01,0.02,0.03,0.04,0.05,1e30")
    seen = set()
    while process.poll() is None:
        seen |= set(cluster.running())
        time.sleep(0.2)
    output = finish(process, exit_code=1)
    assert {job.split("_")[1] for job, _ in seen} == set("012345")  # tasks of one array
    assert len({job.split("_")[0] for job, _ in seen}) == 1
    assert {machine for _, machine in seen} == {"n1", "n2"}
    assert set(trial_lines(output)) == {1, 2, 3, 4, 5}
    assert "trial 6/6" in output and "loss is nan" in output
    again = run_sweep(tmp_path, *SHORT, *SLURM, "method.lr.prefix=0.01,0.05,1e30", exit_code=1)
    assert again.count("done before") == 2 and "loss is nan" in again


def test_a_preempted_trial_is_checkpointed_requeued_and_resumed(
    begun: subprocess.Popen[str], cluster: Slurm, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    job = job_on(cluster, cluster.machines[0])
    cluster.command("sbatch", "--partition=high", "--nodelist=n1", "--output=/dev/null", "--wrap=sleep 1")
    output = finish(begun)
    # Slurm and submitit both requeue it, and whichever is first names the state
    assert cluster.states(job) in (["PREEMPTED", "COMPLETED"], ["REQUEUED", "COMPLETED"])
    assert [step % EVAL_STEPS != 0 for step in resumed_at(tmp_path)] == [True]  # the signal wrote a checkpoint
    assert output.count("resumed") == 1
    assert outcomes(tmp_path) == undisturbed


def test_a_trial_that_an_administrator_requeues_is_resumed(
    begun: subprocess.Popen[str], cluster: Slurm, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    job = job_on(cluster, cluster.machines[0])
    cluster.command("scontrol", "requeue", job)
    output = finish(begun)
    assert cluster.states(job) == ["REQUEUED", "COMPLETED"]
    assert output.count("resumed") == 1 and len(resumed_at(tmp_path)) == 1
    assert outcomes(tmp_path) == undisturbed


def test_a_trial_whose_machine_dies_goes_on_elsewhere(
    begun: subprocess.Popen[str], cluster: Slurm, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    first, _ = cluster.machines
    job = job_on(cluster, first)
    first.power_off()
    output = finish(begun)
    assert cluster.states(job) == ["NODE_FAIL", "COMPLETED"]
    assert output.count("resumed") == 1
    assert outcomes(tmp_path) == undisturbed
    cluster.start_machine(first)


def test_without_requeue_a_dead_machine_is_a_failed_trial_and_the_same_command_ends_the_sweep(
    cluster: Slurm, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    first, _ = cluster.machines
    words = [*LONG, *SLURM, "+hydra.launcher.additional_parameters.no-requeue=true", SEEDS]
    process = start_sweep(tmp_path, *words)
    wait_until_in_the_middle(tmp_path, process, 2)
    job = job_on(cluster, first)
    first.power_off()
    output = finish(process, exit_code=1)
    assert cluster.states(job) == ["NODE_FAIL"]
    assert len(trial_lines(output)) == 1 and "ended without a result" in output
    again = run_sweep(tmp_path, *words)  # the one machine that is left does it all
    assert again.count("done before") == 1 and again.count("resumed") == 1
    assert outcomes(tmp_path) == undisturbed
    cluster.start_machine(first)
