"""The parts of a sweep by themselves: the ledger under stress, lines and time left, shares, what is put back."""

from __future__ import annotations

import gc
import io
import json
import os
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mmpt.errors import TrainingError
from mmpt.sweep.isolation import isolated, keep_imported
from mmpt.sweep.ledger import Ledger, Outcome, ledger_of
from mmpt.sweep.progress import Watcher
from mmpt.sweep.table import ranked
from mmpt.sweep.trial import describe_failure, task_words
from mmpt.utils.text import duration


def done(number: int, words: str, score: float, **more: object) -> Outcome:
    scores = {"validation": {"accuracy": score}, "test": {"accuracy": score / 2}}
    result = {"task": words.split("task=")[1].split()[0], "method": "prefix", "metric": "accuracy", "scores": scores}
    return Outcome(number, words, "done", result=result, **more)  # type: ignore[arg-type]


def test_writers_at_the_same_time_append_whole_lines(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path)

    def append(number: int) -> None:
        Ledger(ledger.folder).add(Outcome(number, "é" * 5000, "failed", error="x"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(200)))
    assert sorted(ledger.ended()) == list(range(200))


def test_a_line_that_a_crash_cut_short_is_passed_over(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path)
    ledger.add(done(0, "task=rte", 0.5))
    with ledger.path.open("ab") as file:
        file.write(b'{"number": 1, "overr')
    assert sorted(ledger.ended()) == [0]
    Ledger(ledger.folder).add(done(2, "task=rte", 0.5))  # begins a line of its own
    assert sorted(ledger.ended()) == sorted(Ledger(ledger.folder).ended()) == [0, 2]


def test_each_line_is_parsed_once_for_all_trials_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    monkeypatch.setattr("mmpt.sweep.ledger.parse_json", lambda line: parsed.append(line) or json.loads(line))
    folder = Ledger.create(tmp_path).folder
    for number in range(50):
        ledger_of(folder).add(done(number, "task=rte", 0.5))
        assert len(ledger_of(folder).ended()) == number + 1
    assert len(parsed) == 50


def test_lines_count_down_and_lost_trials_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger.create(tmp_path)
    watcher = Watcher(ledger, total=3)
    watcher._began -= 60
    ledger.add(Outcome(0, "task=rte", "started"))
    ledger.add(done(0, "task=rte", 0.5, seconds=61.4, resumed=True))
    ledger.add(Outcome(1, "task=cb", "started", where="elsewhere:1"))
    watcher.poll()
    assert capsys.readouterr().out == (
        "trial 1/3  task=rte  validation 0.500  test 0.250  1 min 1 s, resumed  2 left, about 2 min 0 s\n"
    )
    watcher.wait_for_lost()
    watcher.give_up(watcher.lost(), "SIGKILL")
    assert watcher.summary() == 1
    said = capsys.readouterr()
    assert "trial 2/3  task=cb: its process elsewhere:1 ended without a result" in said.err
    assert "1 trials done, 1 failed, 1 not run" in said.out


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (310, "5 min 10 s"), (7500, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_table_ranks_within_a_task_and_averages_seeds() -> None:
    words = ["lr=1 seed=1 task=rte", "lr=1 seed=2 task=rte", "lr=2 seed=1 task=rte", "lr=1 seed=1 task=cb"]
    rows = [
        done(number, text, score) for number, (text, score) in enumerate(zip(words, (0.2, 0.4, 0.5, 0.9), strict=True))
    ]
    found = ranked([*rows, Outcome(4, "lr=3 task=rte", "failed")]).splitlines()
    assert found[2:] == [
        "| 1 | cb (accuracy) | lr=1 | 0.900 | 0.450 | 1 |",
        "| 1 | rte (accuracy) | lr=2 | 0.500 | 0.250 | 1 |",
        "| 2 | rte (accuracy) | lr=1 | 0.300 ± 0.141 | 0.150 ± 0.071 | 2 |",
        "| – | | lr=3 task=rte | failed | | |",
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

    keep_imported()
    kept = gc.get_freeze_count()
    later = Cycle()
    seen = weakref.ref(later)
    keep_imported()
    del later
    gc.collect()
    assert 0 < gc.get_freeze_count() <= kept and seen() is None


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
    assert task_words(["++seed=1", "sweep=x", "run.root=r", "logger=none", "method=smop"]) == "seed=1 method=smop"


def test_a_ledger_is_json_lines_that_others_can_read(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path)
    ledger.add(done(0, "task=rte", float("nan")))
    (line,) = ledger.path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["result"]["scores"]["validation"]["accuracy"] is None
    out = io.StringIO(ranked(list(ledger.ended().values())))
    assert "| 1 | rte (accuracy) | prefix | none |" in out.read()
