"""Searches by Optuna: what is asked for, what happens to trials that were cut short, storage that cannot be used."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mmpt.cli import main
from mmpt.errors import ConfigError, RunError
from mmpt.runs.result import Result
from mmpt.sweep.outcomes import Outcome
from tests.sweep.conftest import command, lines, sweep, table

optuna = pytest.importorskip("optuna", reason="needs the extra optuna: pip install -c constraints.txt -e '.[optuna]'")

from mmpt.sweep.search import Search, open_search, search_space  # noqa: E402

pytestmark = pytest.mark.timeout(900)  # whole sweeps, and a machine that does other things too
WORDS = ["++method.lr.prefix=tag(log,interval(0.01,1))", "++method.num_routes=choice(2,4)", "++seed=3", "task=rte"]


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    given = {"storage": f"sqlite:///{folder}/o.db", "study_name": None, "seed": 1, "startup_trials": 2, "prune": True}
    return given | more


def ended(value: float | None) -> Outcome:
    if value is None:
        return Outcome(0, "failed", error="x")
    scores = {"validation": {"f1": value, "decoding": "ranking"}}
    return Outcome(0, "done", result=Result.from_dict({"metric": "f1", "scores": scores}))


def run(search: Search, total: int, stop: int | None = None) -> list[dict[str, Any]]:
    """Carry out a search whose score is its learning rate; a command that is killed leaves a trial running."""
    asked = []
    for batch in search.batches(total, 1):
        for trial in batch:
            asked.append(trial.params)
            if len(asked) == stop:
                return asked
            search.tell(trial, ended(trial.params["++method.lr.prefix"]))
    return asked


def test_a_search_space_in_hydras_grammar() -> None:
    space, fixed = search_space([*WORDS, "++other=range(1,4)", "++width=int(interval(1,9))", "++seed=4"])
    assert space["++method.lr.prefix"] == optuna.distributions.FloatDistribution(0.01, 1, log=True)
    assert space["++other"] == optuna.distributions.IntDistribution(1, 3)
    assert space["++method.num_routes"] == optuna.distributions.CategoricalDistribution([2, 4])
    assert space["++width"] == optuna.distributions.IntDistribution(1, 9)
    assert fixed == {"++seed": "4", "task": "rte"}
    with pytest.raises(ConfigError, match="no dimension"):
        search_space(["seed=1"])


@pytest.mark.parametrize("file", ["sqlite:///{}/o.db", "{}/o.journal"])
def test_a_search_that_was_cut_short_asks_for_the_same(file: str, tmp_path: Path) -> None:
    space, fixed = search_space(WORDS)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with open_search(space, fixed, **settings(tmp_path, storage=file.format(tmp_path / "a"))) as search:
        whole = run(search, 8)
    for stop in (3, 6, None):  # the first of a command are those that are done
        with open_search(space, fixed, **settings(tmp_path, storage=file.format(tmp_path / "b"))) as search:
            parts = run(search, 8, stop)
    assert parts == whole and len(whole) == 8
    assert len(search.finished()) == 8


def test_more_trials_go_on_from_there_and_failed_ones_count(tmp_path: Path) -> None:
    space, fixed = search_space(WORDS)
    with open_search(space, fixed, **settings(tmp_path)) as search:
        for batch in search.batches(2, 1):
            search.tell(batch[0], ended(None))
    with open_search(space, fixed, **settings(tmp_path)) as search:
        assert len(run(search, 5)) == 5


def test_the_words_of_a_trial_are_short_and_name_it(tmp_path: Path) -> None:
    space, fixed = search_space(WORDS)
    with open_search(space, fixed, **settings(tmp_path)) as search:
        ((trial,),) = list(search.batches(1, 1))
        words = search.words(trial)
    assert words[:2] == ["++seed=3", "task=rte"]
    assert all(len(word.split("=")[1]) <= 9 for word in words[2:4])
    assert words[4:] == ["hydra.sweeper.trial=0", f"hydra.sweeper.study_name='{search.settings['study_name']}'"]


def test_storage_in_use_locked_or_broken_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, fixed = search_space(WORDS)
    with open_search(space, fixed, **settings(tmp_path)) as search:
        run(search, 1)
        with pytest.raises(RunError, match="is in use by pid"), open_search(space, fixed, **settings(tmp_path)):
            pass
    monkeypatch.setattr("mmpt.sweep.search.LOCK_SECONDS", 0.1)
    other = sqlite3.connect(tmp_path / "o.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RunError, match="database is locked"), open_search(space, fixed, **settings(tmp_path)):
        pass
    other.close()
    (tmp_path / "o.db").write_text("no database at all, but a text that is long enough to be read as one")
    with pytest.raises(RunError, match="cannot be used"), open_search(space, fixed, **settings(tmp_path)):
        pass


def test_a_search_of_no_trials_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep=tune", "hydra.sweeper.n_trials=0"]) == 2
    assert "the sweep has no trials" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_table(tmp_path: Path) -> None:
    words = ["sweep=tune", "hydra.sweeper.n_trials=6", "hydra.sweeper.startup_trials=2", "hydra.sweeper.prune=false"]
    whole = sweep(tmp_path / "whole", *words)
    assert whole.returncode == 0, whole.stderr
    root = tmp_path / "killed"
    root.mkdir()
    for done in (1, 3):
        process = subprocess.Popen(command(root, *words), stdout=subprocess.DEVNULL)
        while len(list(root.glob("rte-*/metrics.jsonl"))) <= done and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = sweep(root, *words)
    assert last.returncode == 0, last.stderr
    assert table(last.stdout) == table(whole.stdout)
    assert "done before" in last.stdout and len(lines(last.stdout)) == 6


@pytest.mark.slow
def test_poor_trials_are_pruned(tmp_path: Path) -> None:
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=7", "hydra.sweeper.startup_trials=4", "method=prefix"]
    words += ["trainer.eval_strategy=steps", "trainer.eval_steps=2", "trainer.max_steps=8", "evaluation.best_by=loss"]
    words += ["method.lr.prefix=choice(0.00001,0.3)", "seed=choice(1,2,3,4,5,6,7)", "hydra.sweeper.seed=5"]
    done = sweep(tmp_path / "r", *words)
    assert done.returncode == 0, done.stderr
    pruned = [line for line in lines(done.stdout) if "  pruned" in line]
    assert pruned, done.stdout
    states = [json.loads(path.read_text()) for path in (tmp_path / "r").glob("*/status.json")]
    assert sum(status.get("error", {}).get("type") == "TrialPruned" for status in states) == len(pruned)
    again = sweep(tmp_path / "r", *words)
    assert table(again.stdout) == table(done.stdout)
