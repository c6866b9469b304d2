"""Rows: what is a repetition, what tells rows apart, and what is warned about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.report.groups import Row, group, problems
from mmpt.report.load import load
from tests.report.builder import result, write


def rows(place: Path) -> list[Row]:
    return group(load([place]).runs)


def test_a_hyperparameter_makes_rows_of_its_own(tmp_path: Path) -> None:
    for seed in (1, 2):
        for rate in (0.05, 0.5):
            settings = {"method.lr.prefix": rate}
            write(tmp_path, seed=seed, score=rate, settings=settings, name=f"{seed}-{rate}")
    write(tmp_path, "smop", score=0.01)
    first, second, other = rows(tmp_path)
    assert first.settings == {"method.lr.prefix": "0.5"} and first.label == "prefix lr.prefix=0.5"
    assert second.settings == {"method.lr.prefix": "0.05"} and second.seeds == [1, 2]
    assert other.settings == {} and other.rank == 3


def test_what_differs_beside_the_method_is_shown_for_all(tmp_path: Path) -> None:
    write(tmp_path, "prefix", settings={"trainer.max_steps": 20})
    write(tmp_path, "smop", settings={"trainer.max_steps": 40})
    assert [row.settings for row in rows(tmp_path)] == [{"trainer.max_steps": "20"}, {"trainer.max_steps": "40"}]


def test_what_only_shows_or_stores_makes_no_row(tmp_path: Path) -> None:
    write(tmp_path, seed=1, settings={"trainer.logging_steps": 1, "logger.name": "wandb", "experiment": "smoke"})
    write(tmp_path, seed=2)
    (row,) = rows(tmp_path)
    assert row.seeds == [1, 2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data_fingerprint": "x"}, "warning: mixed data_fingerprint (d, x)"),
        ({"backbone_fingerprint": "x"}, "warning: mixed backbone_fingerprint (b, x)"),
        ({"versions": {"torch": "9"}}, "warning: mixed versions of torch (2.13.0, 9)"),
    ],
)
def test_mixed_provenance_is_a_warning_in_the_row(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    write(tmp_path, seed=1)
    write(tmp_path, seed=2, **change)
    (row,) = rows(tmp_path)
    assert row.notes == [told] and row.summary is not None and row.summary.n == 2


def test_a_repeated_seed_counts_once(tmp_path: Path) -> None:
    write(tmp_path, seed=1, score=0.5, name="a")
    write(tmp_path, seed=1, score=0.9, name="b", config_fingerprint="another")
    (row,) = rows(tmp_path)
    assert row.scores == [0.9]
    assert problems([row]) == ["a: repeated seed 1 again, another run as b, which counts"]


def test_the_same_run_given_twice_counts_once(tmp_path: Path) -> None:
    write(tmp_path)
    loaded = load([tmp_path, tmp_path / "rte-prefix-1"])
    (row,) = group(loaded.runs)
    assert row.scores == [0.7] and "the same run" in problems([row])[0]


def test_a_file_of_results_beside_their_directories_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "runs", settings={"method.lr.prefix": 0.5})
    (tmp_path / "all.jsonl").write_text(json.dumps(result()) + "\n")
    (row,) = group(load([tmp_path / "runs", tmp_path / "all.jsonl"]).runs)
    assert row.scores == [0.7] and row.runs[0].directory is not None
    assert problems([row]) == ["all.jsonl:1: repeated seed 1 again, the same run as rte-prefix-1, which counts"]


def test_results_without_settings_are_told_apart_by_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    bigger = {"trainable": 200, "total": 1000, "bytes": 800, "groups": {"prefix": 200}}
    several = [result(seed=1), result(seed=2), result(seed=1, score=0.9, parameters=bigger, config_fingerprint="z")]
    several += [result(seed=2, score=0.1, config_fingerprint="y")]
    path.write_text("".join(json.dumps(one) + "\n" for one in several))
    first, second = rows(path)
    assert first.settings == {"settings": "#2, not in the file"} and first.scores == [0.9]
    assert sorted(second.scores) == [0.1, 0.7, 0.7]
    assert any("seed 2 repeated with settings that the file does not have" in note for note in second.notes)


def test_a_seed_that_another_row_has_is_missed(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write(tmp_path, "prefix", seed=seed)
    write(tmp_path, "smop", seed=2)
    notes = {row.method: row.notes for row in rows(tmp_path)}
    assert notes == {"prefix": [], "smop": ["no run of seed 1, 3"]}


def test_a_row_of_failures_stays(tmp_path: Path) -> None:
    write(tmp_path, "prefix")
    write(tmp_path, "smop", status={"status": "failed", "error": {"message": "loss is nan"}})
    done, failed = rows(tmp_path)
    assert failed.summary is None and failed.metric == done.metric
    assert failed.notes == ["seed 1 failed loss is nan"]


def test_own_code_and_processes_tell_settings_apart(tmp_path: Path) -> None:
    for seed in (1, 2):
        write(tmp_path, "own", seed=seed, score=0.7, own_code="a" * 64, processes=1, name=f"old-{seed}")
    write(tmp_path, "own", seed=3, score=0.1, own_code="b" * 64, processes=1)
    write(tmp_path, "prefix", seed=1, processes=2)
    write(tmp_path, "prefix", seed=2)  # of before: one process
    rows = group(load([tmp_path]).runs)
    assert {row.label: row.seeds for row in rows} == {
        "own own_code=aaaaaaaa": [1, 2],
        "own own_code=bbbbbbbb": [3],
        "prefix processes=2": [1],
        "prefix processes=1": [2],
    }


def test_shots_are_a_setting_and_their_texts_no_other_data(tmp_path: Path) -> None:
    for shots in (0, 4):
        for seed in (1, 2):
            settings = {"task.shots": shots}
            write(tmp_path, seed=seed, settings=settings, data_fingerprint=f"{seed * shots}", name=f"{shots}-{seed}")
    rows = group(load([tmp_path]).runs)
    assert sorted((row.label, row.seeds, row.notes) for row in rows) == [
        ("prefix task.shots=0", [1, 2], []),
        ("prefix task.shots=4", [1, 2], []),
    ]
