"""The parts of a sweep by themselves: outcomes under stress, lines and time left, the table, what is restored."""

from __future__ import annotations

import gc
import os
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mmpt.errors import TrainingError
from mmpt.runs.failures import TrialRecord, read_failures
from mmpt.runs.result import Result
from mmpt.sweep.isolation import freeze_imported, isolated
from mmpt.sweep.outcomes import Outcome, Outcomes, trial_words
from mmpt.sweep.plan import Plan
from mmpt.sweep.progress import Progress
from mmpt.sweep.table import ranked
from mmpt.sweep.trial import describe_failure
from mmpt.utils.files import values_key
from mmpt.utils.text import duration
from tests.runs.test_record import make_result, open_record


def done(number: int, words: str, score: float | None, seed: int = 1, **settings: object) -> Outcome:
    """A trial that is done, as the table sees it; its values say what it is, whatever its words."""
    scores = {split: {"accuracy": score, "decoding": "ranking"} for split in ("validation", "test")}
    task = settings.get("task", "rte")
    config = {"task": task, "seed": seed, **settings}
    content = {"task": task, "method": "prefix", "metric": "accuracy", "scores": scores, "config": config}
    content["config_fingerprint"] = values_key(config)
    return Outcome(number, "done", TrialRecord(words, key=values_key(config)), result=Result.from_dict(content))


def stored(root: Path, number: int, **values: object) -> Outcome:
    """A trial that is done, with a run directory."""
    directory = root / f"run{number}"
    open_record(directory).finish(make_result(seed=number))
    return Outcome(number, "done", TrialRecord(f"seed={number}"), directory=str(directory), **values)  # type: ignore[arg-type]


def test_many_writers_at_once_and_one_that_is_killed(tmp_path: Path) -> None:
    folder = Outcomes.create(tmp_path).folder

    def write(number: int) -> None:
        for state in ("started", "failed"):
            Outcomes(folder).write(Outcome(number % 100, state, TrialRecord("é" * 5000), error="x"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(200)))
    (folder / ".100.json.1.tmp").write_text('{"number": 100, "sta')  # of a process that was killed
    (folder / "101.json").write_text('{"number": 101, "sta')
    assert [outcome.number for outcome in Outcomes(folder).news(set())] == list(range(100))


def test_a_sweep_of_a_thousand_trials_reads_each_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    result = make_result()
    monkeypatch.setattr("mmpt.sweep.outcomes.read_result", lambda path: read.append(path) or result)
    outcomes = Outcomes.create(tmp_path)
    progress = Progress(outcomes, Plan(tmp_path, 1000, "basic", 1))
    for number in range(1000):
        outcomes.write(Outcome(number, "done", TrialRecord(f"seed={number}"), directory=str(number)))
        if number % 10 == 0:
            progress.poll()
    progress.poll()
    assert progress.summary() == 0 and len(read) == 1000


def test_lines_count_down_and_lost_trials_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = Outcomes.create(tmp_path)
    progress = Progress(outcomes, Plan(tmp_path, 3, "basic", 1, constant=("a=1",)))
    progress._began -= 60
    outcomes.write(Outcome(0, trial=TrialRecord("seed=0")))
    progress.poll()
    outcomes.write(stored(tmp_path, 0, seconds=61.4, resumed=True))
    outcomes.write(Outcome(1, trial=TrialRecord("a=1 task=cb", key="k"), host="elsewhere", pid=1))
    progress.poll()
    assert capsys.readouterr().out == (
        "trial 1/3  seed=0  validation 0.700  test 0.700  1 min 1 s, resumed  2 left, about 2 min 0 s\n"
    )
    progress.fail(progress.lost(), "SIGKILL")
    assert progress.summary() == 1
    said = capsys.readouterr()
    assert "trial 2/3  task=cb: its process elsewhere:1 ended without a result" in said.err
    assert "1 trials done, 1 failed, 1 not run" in said.out
    (record,) = read_failures(tmp_path)
    assert record.overrides == "a=1 task=cb" and "SIGKILL" in record.error


def test_a_trial_fails_once_its_process_has_died_twice(tmp_path: Path) -> None:
    outcomes = Outcomes.create(tmp_path)
    progress = Progress(outcomes, Plan(tmp_path, 2, "basic", 1))
    for at in (1.0, 2.0):
        outcomes.write(Outcome(0, host="elsewhere", at=at))
        outcomes.write(Outcome(1, host="elsewhere", at=1.0))  # was not started again
        died = progress.died_often(progress.lost(), 2)
    assert [outcome.number for outcome in died] == [0]


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (310, "5 min 10 s"), (7500, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_table_ranks_within_a_task_and_averages_seeds() -> None:
    rows = [
        done(0, "lr=1 seed=1 task=rte", 0.2, lr=1),
        done(1, "lr=1 seed=2 task=rte", 0.4, seed=2, lr=1),
        done(2, "lr=2 seed=1 task=rte", 0.5, lr=2),
        done(3, "lr=1 seed=1 task=cb", 0.9, task="cb", lr=1),
        done(4, "lr=4 seed=1 task=rte", None, lr=4),
        Outcome(5, "failed", TrialRecord("lr=3 task=rte")),
    ]
    assert ranked(rows).splitlines()[2:] == [
        "| 1 | cb (accuracy) | lr=1 | 0.900 | 0.900 | 1 |",
        "| 1 | rte (accuracy) | lr=2 | 0.500 | 0.500 | 1 |",
        "| 2 | rte (accuracy) | lr=1 | 0.300 ± 0.141 | 0.300 ± 0.141 | 2 |",
        "| 3 | rte (accuracy) | lr=4 | none | none | 1 |",
        "| – | | lr=3 task=rte | failed | | |",
    ]


def test_settings_are_told_apart_by_values_and_a_run_counts_once() -> None:
    rows = [
        done(0, "method.lr.prefix=0.1 seed=1 a=1", 0.2, lr=0.1),
        done(1, "method.lr.prefix=1e-1 seed=2 a=2", 0.4, seed=2, lr=0.1),
        done(2, "method.lr.prefix=1e-1 seed=2 a=3", 0.4, seed=2, lr=0.1),  # the run of the one above
        done(3, 'text="a seed=1  b" seed=1 a=1', 0.3, text="a seed=1  b"),
        Outcome(4, "failed", TrialRecord("lr=-1", key="k")),
        Outcome(5, "failed", TrialRecord("lr=-1.0", key="k")),
    ]
    assert [line.split("|")[3:] for line in ranked(rows).splitlines()[2:]] == [
        [" method.lr.prefix=0.1 a=1 ", " 0.300 ± 0.141 ", " 0.300 ± 0.141 ", " 2 ", ""],
        [' text="a seed=1 b" a=1 ', " 0.300 ", " 0.300 ", " 1 ", ""],
        [" lr=-1 ", " failed ", " ", " ", ""],
    ]


def test_what_a_trial_changes_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    filters, threads = list(warnings.filters), torch.get_num_threads()
    with pytest.raises(ValueError, match="x"), isolated():
        os.environ["NEW"] = "1"
        del os.environ["KEPT"]
        warnings.simplefilter("ignore")
        torch.set_num_threads(threads + 1)
        torch.set_default_dtype(torch.float64)
        raise ValueError("x")
    assert "NEW" not in os.environ and os.environ["KEPT"] == "1"
    assert list(warnings.filters) == filters
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, torch.float32)


def test_the_collector_passes_over_what_was_there_at_the_first_trial_alone() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    freeze_imported()
    frozen = gc.get_freeze_count()
    later = Cycle()
    seen = weakref.ref(later)
    freeze_imported()
    del later
    gc.collect()
    assert 0 < gc.get_freeze_count() <= frozen and seen() is None


def test_a_wandb_run_that_was_left_open_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with isolated():
        wandb.init(project="x", dir=str(tmp_path))
        assert wandb.run is not None
    assert wandb.run is None


@pytest.mark.slow
def test_attention_functions_do_not_grow_in_number() -> None:
    from transformers import AttentionInterface

    import mmpt.attention.inject  # noqa: F401

    names = set(AttentionInterface().valid_keys())
    assert {"mmpt_sdpa", "mmpt_eager"} <= names
    from mmpt.cli import main
    from tests.sweep.conftest import FEW

    assert main(["-m", *FEW, "trainer.max_steps=1", "method=prefix", "model.attention=eager,sdpa", "run.root=r"]) == 0
    assert set(AttentionInterface().valid_keys()) == names


def test_peak_memory_starts_anew_with_each_run() -> None:
    from mmpt.training.memory import peak_memory, reset_peak_memory

    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system can't reset a process's peak memory")
    block = torch.ones(100_000_000)
    high = peak_memory()
    del block
    reset_peak_memory()
    assert peak_memory() < high - 300_000_000


def test_errors_in_one_line() -> None:
    assert describe_failure(TrainingError("loss is nan\nat step 3")) == "loss is nan at step 3"
    assert describe_failure(MemoryError()).startswith("out of memory (MemoryError); lower trainer.per_device")
    assert trial_words(["++seed=1", "sweep=x", "run.root=r", "logger=none", "method=smop"]) == "seed=1 method=smop"
