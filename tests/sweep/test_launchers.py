"""Every engine for real, on this machine: processes, Slurm's local stand-in, a Ray cluster of two workers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmpt.runs.failures import read_failures
from mmpt.training.checkpoint import last_checkpoint
from tests.sweep.conftest import command, lines, outcome, sweep, table

pytestmark = pytest.mark.timeout(900)  # whole sweeps, and a machine that does other things too
FAST = ["method=prefix", "trainer.max_steps=2"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(
        missing, reason=f"needs the extra {extra}: pip install -c constraints.txt -e '.[{extra}]'"
    )


def environments(root: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob("rte-*/environment.json"))]


@pytest.mark.slow
@needs("hydra_plugins.hydra_joblib_launcher", "joblib")
def test_joblib_gives_the_same_and_divides_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = sweep(tmp_path / "here", *FAST, "seed=1,2,3")
    monkeypatch.delenv("OMP_NUM_THREADS")
    done = sweep(tmp_path / "there", *FAST, "seed=1,2,3", *JOBLIB)
    assert done.returncode == 0, done.stderr
    assert table(done.stdout) == table(here.stdout) and len(lines(done.stdout)) == 3
    cores = len(os.sched_getaffinity(0))
    assert {found["threads"] for found in environments(tmp_path / "there")} == {max(1, cores // 2)}
    for directory in (tmp_path / "here").glob("rte-*"):
        assert outcome(tmp_path / "there" / directory.name)["result"] == outcome(directory)["result"]


@pytest.mark.slow
@needs("hydra_plugins.hydra_joblib_launcher", "joblib")
def test_a_failure_in_a_worker_reaches_the_lines_and_the_exit_code(tmp_path: Path) -> None:
    done = sweep(tmp_path / "r", *FAST, *JOBLIB, "method.lr.prefix=-1,0.05")
    assert done.returncode == 1
    assert "trial 1/2" in done.stderr and "must be a positive number" in done.stderr
    assert len(lines(done.stdout)) == 1


@pytest.mark.slow
@needs("hydra_plugins.hydra_joblib_launcher", "joblib")
def test_a_worker_that_is_killed_does_not_end_the_sweep(tmp_path: Path) -> None:
    """As the system does where memory runs out: the trial is tried once more, and the others go on."""
    root = tmp_path / "r"
    root.mkdir()
    words = ["method=prefix", "trainer.max_steps=60", "seed=1,2,3", *JOBLIB]
    process = subprocess.Popen(command(root, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    path = None
    while path is None and process.poll() is None:
        path = next(root.glob("rte-*/metrics.jsonl"), None)
        time.sleep(0.05)
    assert path is not None
    pid = json.loads((path.parent / "status.json").read_text())["pid"]
    assert pid != process.pid
    os.kill(pid, signal.SIGKILL)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(lines(said)) == 3 and "resumed" in said


@pytest.mark.slow
@needs("hydra_plugins.hydra_joblib_launcher", "joblib")
def test_gpus_are_spread_over_trials_at_once(tmp_path: Path) -> None:
    """Two names stand for two GPUs: each worker process must see one of them, and not the same."""
    code = (
        "import os, sys, time; from pathlib import Path; from joblib import Parallel, delayed\n"
        "from mmpt.sweep.isolation import claim_share\n"
        "def look(folder, parent):\n"
        "    claim_share(folder, parent, 2); time.sleep(1)\n"
        "    return os.environ['CUDA_VISIBLE_DEVICES'], os.getpid()\n"
        "folder = Path(sys.argv[1]); folder.mkdir()\n"
        "found = Parallel(2)(delayed(look)(folder, os.getpid()) for _ in range(4))\n"
        "print(sorted({pid: gpu for gpu, pid in found}.values()), os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    import sys

    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "3,GPU-5f"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f")], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "['3', 'GPU-5f'] 3,GPU-5f", done.stderr


@pytest.mark.slow
@needs("hydra_plugins.hydra_submitit_launcher", "slurm")
def test_submitit(tmp_path: Path) -> None:
    done = sweep(
        tmp_path / "r",
        *FAST,
        "method.lr.prefix=-1,0.05",
        "hydra/launcher=submitit_local",
        "hydra.launcher.timeout_min=5",
    )
    assert done.returncode == 1
    assert "must be a positive number" in done.stderr and len(lines(done.stdout)) == 1


@pytest.mark.slow
@needs("ray", "ray")
def test_ray_with_two_workers(tmp_path: Path) -> None:
    words = ["hydra/launcher=ray", "+hydra.launcher.init.num_cpus=2"]
    done = sweep(tmp_path / "r", *FAST, *words, "method.lr.prefix=-1,0.05", "seed=1,2")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("must be a positive number") == 2 and len(lines(done.stdout)) == 2
    states = [json.loads(path.read_text()) for path in (tmp_path / "r").glob("*/status.json")]
    assert len({state["pid"] for state in states}) == 2
    assert len(list(read_failures(tmp_path / "r"))) == 2


@needs("ray", "ray")
def test_a_ray_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = sweep(tmp_path / "r", *FAST, "hydra/launcher=ray", "hydra.launcher.init.address=127.0.0.1:1", "seed=1,2")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Ray cluster answers at") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    """torchrun with gloo; the batch of the two together is the batch of the one."""
    import sys

    root = Path(__file__).parents[2]
    fixed = ["experiment=smoke", "trainer.max_steps=6", "trainer.logging_steps=1"]
    fixed += ["method.perturb_router=false", "method.router_dropout=0.0"]
    one = [sys.executable, str(root / "train.py"), *fixed, f"run.dir={tmp_path / 'one'}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    two = [*torchrun, str(root / "train.py"), *fixed, f"run.dir={tmp_path / 'two'}"]
    for words in (one, [*two, "trainer.per_device_train_batch_size=4"]):
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run directory: ") == 1  # one process speaks
    first, second = (outcome(tmp_path / name)["metrics"] for name in ("one", "two"))
    losses = [[line["train/loss"] for line in found if "train/loss" in line] for found in (first, second)]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    checkpoint = last_checkpoint(tmp_path / "two" / "checkpoints")
    assert checkpoint is not None
    tensors = load_file(checkpoint / "state.safetensors")
    assert not torch.equal(tensors["random.0.torch"], tensors["random.1.torch"])  # noise of its own in each process
    assert json.loads((tmp_path / "two" / "result.json").read_text(encoding="utf-8"))["processes"] == 2
    again = subprocess.run([*two, "trainer.per_device_train_batch_size=4"], capture_output=True, text=True)
    assert again.returncode == 0 and "this run is done" in again.stdout
    wrong = subprocess.run([*two, "method.lr.prefix=-1"], capture_output=True, text=True)
    assert wrong.returncode != 0 and wrong.stderr.count("error: method.lr.prefix=-1 must be") == 1
