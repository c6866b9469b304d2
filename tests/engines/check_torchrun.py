"""One run on two machines with torchrun and gloo, over a network of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.machines import ROOT, Machine

SETTINGS = ["experiment=smoke", "trainer.max_steps=6", "trainer.logging_steps=1", "method.perturb_router=false"]
SETTINGS += ["method.router_dropout=0.0", "trainer.per_device_train_batch_size=4"]


def torchrun(*words: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *words, str(ROOT / "train.py")]


def losses(directory: Path) -> list[float]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def on_both(machines: list[Machine], directory: Path) -> list[str]:
    """Start the same command on each machine; what each prints."""
    where = ["--nnodes=2", f"--master-addr={machines[0].address}", "--master-port=29500"]
    processes = [
        machine.start(
            "env",
            "GLOO_SOCKET_IFNAME=eth0",
            *torchrun(*where, f"--node-rank={rank}"),
            *SETTINGS,
            f"run.dir={directory}",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank, machine in enumerate(machines)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return outputs


def test_two_machines_take_the_steps_of_two_processes_on_one(machines: list[Machine], tmp_path: Path) -> None:
    one = torchrun("--standalone", "--nproc-per-node=2")
    subprocess.run([*one, *SETTINGS, f"run.dir={tmp_path / 'one'}"], check=True, capture_output=True)
    first, second = on_both(machines, tmp_path / "two")
    assert first.count("run directory: ") == 1 and "run directory: " not in second  # rank 0 speaks
    expected = losses(tmp_path / "one")
    assert len(expected) == 6
    assert losses(tmp_path / "two") == pytest.approx(expected, abs=1e-6)
    again, _ = on_both(machines, tmp_path / "two")
    assert "this run is done" in again
