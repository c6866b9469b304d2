"""Sweeps in one process: lines, failures, the same command again, real kills, trials that don't touch each other."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from mmpt.cli import main
from mmpt.runs.failures import read_failures
from mmpt.runs.result import Result
from tests.reliability.faults import Bomb
from tests.reliability.faults import command as run_apart
from tests.sweep.conftest import FEW, command, lines, outcome, table

TRIALS = ["method=multimask,smop", "seed=1,2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep that nothing interrupted, and what it printed."""
    root = tmp_path_factory.mktemp("sweep") / "whole"
    return root, here(root, *TRIALS)


def here(root: Path, *words: str) -> str:
    """A sweep in this process, which has seen others, that must succeed; returns what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["-m", *FEW, f"run.root={root}", *words]) == 0
    return said.getvalue()


def apart(root: Path, words: list[str], bomb: Bomb | None = None) -> int:
    """A sweep in a process of its own; returns its exit code."""
    root.mkdir(exist_ok=True)
    (code,) = run_apart(root, ["-m", *FEW, f"run.root={root}", *words], bomb)
    return code


def test_a_line_a_trial_and_a_ranked_table(whole: tuple[Path, str]) -> None:
    root, said = whole
    assert len(lines(said)) == 4
    assert said.startswith("mmpt: 4 trials, each with experiment=smoke trainer.max_steps=6 ")
    assert lines(said)[0].startswith("trial 1/4  method=multimask seed=1  validation ")
    assert said.endswith(f"next:\n  python -m mmpt report {root}\n")
    assert "3 left, about" in lines(said)[0] and lines(said)[-1].endswith("  0 left")
    ranks = [row.split("|") for row in table(said)[2:]]
    assert [int(rank[1]) for rank in ranks] == [1, 2]
    assert float(ranks[0][4].split("±")[0]) >= float(ranks[1][4].split("±")[0])
    assert {rank[3].strip() for rank in ranks} == {"method=multimask", "method=smop"}
    assert len(said.splitlines()) < 15  # what a run prints by itself is in its log
    logs = list(root.glob(".sweeps/*/*.log"))
    assert len(logs) == 4 and all("run directory:" in log.read_text(encoding="utf-8") for log in logs)


def test_a_trial_in_a_sweep_gives_what_it_gives_alone(whole: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = whole
    assert apart(tmp_path / "alone", ["method=smop", "seed=2"]) == 0
    (alone,) = (tmp_path / "alone").glob("*/result.json")
    assert outcome(alone.parent) == outcome(root / alone.parent.name)
    parts = ("threads", "versions", "gpus")
    here, there = (
        json.loads((place / "environment.json").read_text()) for place in (alone.parent, root / alone.parent.name)
    )
    assert [here[part] for part in parts] == [there[part] for part in parts]


def test_the_same_command_skips_what_is_done(whole: tuple[Path, str]) -> None:
    root, said = whole
    again = here(root, *TRIALS)
    assert all("done before" in line for line in lines(again)) and len(lines(again)) == 4
    assert "4 trials done (4 of them before)" in again
    assert table(again) == table(said)


def test_a_folder_of_ones_own_configurations_may_hold_the_runs(whole: tuple[Path, str]) -> None:
    root, _ = whole
    assert (root / "multirun.yaml").is_file()  # names the sweeper
    assert all("done before" in line for line in lines(here(root, *TRIALS, "--config-dir", str(root))))


def test_a_killed_sweep_goes_on_to_the_same_table(whole: tuple[Path, str], tmp_path: Path) -> None:
    assert apart(tmp_path / "killed", TRIALS, Bomb("step", 20)) == -signal.SIGKILL  # two events a step: in the second
    assert table(here(tmp_path / "killed", *TRIALS)) == table(whole[1])


@pytest.mark.slow
def test_kills_at_many_moments_change_nothing(whole: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "killed"
    for number in (0, 17, 3, 8, 14, 1):  # of events, two a step, twelve a trial
        assert apart(root, TRIALS, Bomb("step", number)) == -signal.SIGKILL
    assert table(here(root, *TRIALS)) == table(whole[1])
    for directory in whole[0].glob("rte-*"):
        assert outcome(root / directory.name) == outcome(directory)


@pytest.mark.slow
def test_ctrl_c_says_how_far_it_came(tmp_path: Path) -> None:
    def accept_ctrl_c() -> None:  # a test run in the background inherits that it ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    root = tmp_path / "r"
    line = [*command(root, "seed=1,2"), "trainer.max_steps=3000"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, preexec_fn=accept_ctrl_c)
    while not list(root.glob("rte-*/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == 130
    assert "Stopped after 0 of 2 trials. Run the same command again to resume." in said
    (status,) = root.glob("rte-*/status.json")
    assert json.loads(status.read_text())["status"] == "interrupted"


def test_failures_are_reported_recorded_and_retried_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "r"
    broken = "optimizer=adamw", "trainer.max_grad_norm=0.0", "method=prefix", "method.lr.prefix=0.05,1e30,-1"
    assert main(["-m", *FEW, f"run.root={root}", *broken]) == 1
    said = capsys.readouterr()
    assert len(lines(said.out)) == 1 and "1 trials done, 2 failed" in said.out
    assert [row.split("|")[3].strip() for row in table(said.out)[-2:]] == [
        "method.lr.prefix=1e+30",
        "method.lr.prefix=-1",
    ]
    nan, bad, total = said.err.splitlines()
    assert "trial 2/3" in nan and "loss is nan at step" in nan and "trial 3/3" in bad and "must be a positive" in bad
    assert "2 trial(s) of the sweep failed" in total
    states = {json.loads(path.read_text())["status"] for path in root.glob("*/status.json")}
    assert states == {"done", "failed"}
    (record,) = read_failures(root)  # the other one has its run directory
    assert "method.lr.prefix=-1" in record.overrides and "must be a positive" in record.error
    assert not list(root.glob(".sweeps/*/*.json")) or list(root.glob(".sweeps/failed/*.json"))
    assert main(["-m", *FEW, f"run.root={root}", *broken[:-1], "method.lr.prefix=0.05,1e30"]) == 1
    again = capsys.readouterr()
    assert "failed before; sweep.retry_failed=true" in again.err and "done before" in again.out
    assert main(["-m", *FEW, f"run.root={root}", *broken[:-1], "method.lr.prefix=1e30", "sweep.retry_failed=true"]) == 1
    again = capsys.readouterr()
    assert "loss is nan at step" in again.err and "failed before" not in again.err


def test_a_sweep_stops_at_a_failure_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*FEW, f"run.root={tmp_path / 'r'}", "sweep.on_failure=stop"]
    assert main(["-m", *words, "method=prefix", "method.lr.prefix=-1,0.05"]) == 1
    assert "0 trials done, 1 failed, 1 not run" in capsys.readouterr().out


def test_any_error_of_a_trial_leaves_the_others_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmpt.training import run

    original = run.Experiment.carry_out
    errors = {
        1: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        2: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        3: ZeroDivisionError("division by zero"),
    }

    def carry_out(self: run.Experiment, *given: object) -> Result:
        if self.config.seed in errors:
            raise errors[self.config.seed]
        return original(self, *given)

    monkeypatch.setattr(run.Experiment, "carry_out", carry_out)
    words = [*FEW, f"run.root={tmp_path / 'r'}", "method=prefix", "trainer.max_steps=1"]
    assert main(["-m", *words, "seed=1,2,3,4"]) == 1
    said = capsys.readouterr()
    errors_shown = said.err.splitlines()
    for line, part in zip(
        errors_shown, ("out of memory (CUDA out of memory)", "lower trainer.per", "ZeroDivisionError:"), strict=False
    ):
        assert part in line
    assert len(errors_shown) == 4 and len(lines(said.out)) == 1
    (failed,) = (tmp_path / "r").glob("*-s3-*/status.json")
    assert json.loads(failed.read_text())["error"]["type"] == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["-m", "seed=range(1,1)"], "the sweep has no trials"),
        (["-m", "seed=1,2", "run.dir=one"], "one directory for many trials"),
        (["-m", "method.lr.prefix=interval(0.1,0.2)"], "range without steps"),
        (["sweep=compar"], 'did you mean "compare"?'),
        (["sweep=compare,tune"], "names several sweeps"),
        (["sweep=compare", "sweep.on_failure=halt"], "sweep.on_failure"),
    ],
)
def test_sweeps_that_cannot_be_are_one_line(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) in (1, 2)
    said = capsys.readouterr()
    assert part in said.err, said.err


def test_a_sweep_under_torchrun_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["-m", "seed=1,2"]) == 2
    assert "leave out -m" in capsys.readouterr().err


def test_a_missing_engine_is_named_with_the_line_that_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for word in (
        "hydra/launcher=joblib",
        "hydra/launcher=submitit_slurm",
        "hydra/launcher=ray",
        "hydra/sweeper=optuna",
    ):
        assert main(["-m", "seed=1,2", word]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {word} needs a package") and "pip install" in said and said.count("\n") == 1
