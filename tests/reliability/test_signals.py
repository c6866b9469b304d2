"""SIGTERM and SIGINT: a checkpoint, status ``interrupted``, the usual exit code; then the same command resumes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mmpt.training.signals import Stopped, handle_signals
from tests.reliability.faults import Bomb, command, figures
from tests.reliability.test_resume import SMALL, said, undisturbed, words

ROOT = Path(__file__).parents[2]
Whole = tuple[dict[str, Any], dict[str, int]]


def status(directory: Path) -> str:
    return str(json.loads((directory / "status.json").read_text(encoding="utf-8"))["status"])


def checkpoints(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("checkpoints/*"))


def test_sigterm_in_a_step_ends_behind_its_checkpoint(tmp_path: Path, whole: Whole) -> None:
    bomb = Bomb("step", 12, signal.SIGTERM)  # two events a step: in the seventh
    assert command(tmp_path, words(tmp_path, "hit"), bomb) == [143], said(tmp_path)
    assert status(tmp_path / "hit") == "interrupted"
    assert "checkpoint-7" in checkpoints(tmp_path / "hit")
    assert "Stopped at step 7. Run the same command again to resume." in said(tmp_path)
    assert command(tmp_path, words(tmp_path, "hit")) == [0]
    assert figures(tmp_path / "hit") == whole[0]


def test_a_run_resumes_although_wandb_links_to_its_own_log(tmp_path: Path) -> None:
    with_wandb = [*words(tmp_path, "hit"), "logger=wandb", "logger.mode=offline"]
    assert command(tmp_path, with_wandb, Bomb("step", 12, signal.SIGTERM)) == [143], said(tmp_path)
    links = [path for path in (tmp_path / "hit" / "wandb").rglob("*") if path.is_symlink()]
    assert any(not path.resolve().is_relative_to(tmp_path) for path in links)
    assert command(tmp_path, with_wandb) == [0], said(tmp_path)
    assert status(tmp_path / "hit") == "done"


def test_sigint_in_an_evaluation_loses_no_step_and_no_evaluation(tmp_path: Path, whole: Whole) -> None:
    bomb = Bomb("evaluation", 1, signal.SIGINT)  # in its second batch
    assert command(tmp_path, words(tmp_path, "hit"), bomb) == [130], said(tmp_path)
    assert status(tmp_path / "hit") == "interrupted"
    assert checkpoints(tmp_path / "hit") == ["checkpoint-5"]
    assert "Stopped at step 5. Run the same command again to resume." in said(tmp_path)
    again = Bomb("step", 0, signal.SIGKILL)  # behind that evaluation, whose line must not come twice
    assert command(tmp_path, words(tmp_path, "hit"), again) == [-9]
    assert command(tmp_path, words(tmp_path, "hit")) == [0]
    assert figures(tmp_path / "hit") == whole[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, 24, 3))
@pytest.mark.parametrize("kind", ["step", "evaluation", "encoder", "checkpoint", "cache"])
def test_at_any_moment(tmp_path: Path, whole: Whole, kind: str, number: int) -> None:
    sent = signal.SIGTERM if number % 2 else signal.SIGINT
    for times in range(2):
        codes = command(tmp_path, words(tmp_path, "hit"), Bomb(kind, number + times, sent))
        assert codes in ([128 + sent], [0]), said(tmp_path)
    assert command(tmp_path, words(tmp_path, "hit")) == [0]
    assert figures(tmp_path / "hit") == whole[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["step", "evaluation", "encoder"])
def test_five_seconds_at_most(tmp_path: Path, whole: Whole, kind: str) -> None:
    """A step, or a batch, that takes a minute: the step's work is lost then, and nothing else."""
    codes = command(tmp_path, words(tmp_path, "hit"), Bomb(kind, 1, signal.SIGTERM, seconds=60))
    ended = time.monotonic()
    assert codes == [143] and status(tmp_path / "hit") == "interrupted", said(tmp_path)
    found = re.search(r"signal at (\d+\.\d+)", (tmp_path / "output.txt").read_text(encoding="utf-8"))
    assert found is not None
    print(f"{kind}: {ended - float(found[1]):.2f} s from the signal to the exit")
    assert ended - float(found[1]) < 5
    assert command(tmp_path, words(tmp_path, "hit")) == [0]
    assert figures(tmp_path / "hit") == whole[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number", "rank", "step"), [("step", 7, 0, 4), ("step", 12, 1, 7), ("evaluation", 1, -1, 3)]
)
def test_two_ranks_stop_together(tmp_path: Path, kind: str, number: int, rank: int, step: int) -> None:
    """Whichever of them the signal reaches, and where it reaches both."""
    alone, _ = undisturbed(tmp_path, ranks=2)
    codes = command(tmp_path, words(tmp_path, "hit"), Bomb(kind, number, signal.SIGTERM, rank), ranks=2)
    assert codes == [143, 143], said(tmp_path)
    assert status(tmp_path / "hit") == "interrupted"
    assert f"Stopped at step {step}. Run the same command again to resume." in said(tmp_path)
    assert command(tmp_path, words(tmp_path, "hit"), ranks=2) == [0, 0]
    assert figures(tmp_path / "hit") == alone


@pytest.mark.slow
def test_a_sweep_stops_and_goes_on(tmp_path: Path) -> None:
    def sweep(name: str, bomb: Bomb | None = None) -> list[int]:
        words = [*SMALL, "logger=none", "-m", "seed=1,2,3", f"run.root={tmp_path / name}"]
        words += ["trainer.max_steps=9", "trainer.per_device_train_batch_size=8", "trainer.logging_steps=2"]
        return command(tmp_path, words, bomb)

    assert sweep("whole") == [0], said(tmp_path)
    assert sweep("hit", Bomb("step", 8, signal.SIGTERM)) == [143]
    assert "Run the same command again to resume" in said(tmp_path)
    begun = list((tmp_path / "hit").glob("rte-*"))
    assert {status(path) for path in begun} == {"interrupted"}
    assert len(begun) == 1  # no further trial has begun
    assert all(checkpoints(path) for path in begun)
    assert sweep("hit") == [0]
    for path in (tmp_path / "whole").glob("rte-*"):
        assert figures(tmp_path / "hit" / path.name) == figures(path)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("submitit") is None, reason="needs the extra slurm: pip install -e '.[slurm]'")
def test_a_preempted_job_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    """submitit's local engine treats USR2 as Slurm's does: the job saves itself, ends, and is started again."""
    shared = [*SMALL, "logger=none", "trainer.num_train_epochs=60", "trainer.per_device_train_batch_size=8"]
    line = [sys.executable, str(ROOT / "train.py"), "-m", *shared, f"run.root={tmp_path / 'hit'}", "seed=1,2"]
    line += ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    path = None
    while path is None and process.poll() is None:
        path = next((tmp_path / "hit").glob("rte-*s1-*/checkpoints/checkpoint-*"), None)
        time.sleep(0.02)
    assert path is not None, process.communicate()[0]
    job = int(json.loads((path.parents[1] / "status.json").read_text(encoding="utf-8"))["pid"])
    os.kill(job, signal.SIGUSR2)
    told, _ = process.communicate()
    assert process.returncode == 0, told
    starts = [log.read_text(encoding="utf-8") for log in (tmp_path / "hit").glob(".submitit/*/*_log.out")]
    assert sorted(text.count("Starting with JobEnvironment") for text in starts) == [1, 2]
    log = next((tmp_path / "hit").glob(".sweeps/*/0.log")).read_text(encoding="utf-8")
    assert "Stopped at step" in log and "resuming an interrupted run" in log
    assert command(tmp_path, [*shared, f"run.dir={tmp_path / 'whole'}"]) == [0]
    assert figures(path.parents[1]) == figures(tmp_path / "whole")


def test_a_requeue_that_slurm_has_begun_by_itself_is_no_error_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit's handler then fails on ``scontrol requeue``; the run is stopped and not failed."""

    def requeue(number: int, frame: object) -> None:
        raise subprocess.CalledProcessError(1, ["scontrol", "requeue", "10_0"])

    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        with pytest.raises(Stopped), handle_signals():
            os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
