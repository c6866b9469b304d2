"""What is on disk, whole or not: each trouble is one line, and the rest is still there."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import pytest

from mmpt.report.groups import group, problems
from mmpt.report.load import load
from mmpt.report.settings import nested, read_settings
from mmpt.runs.failures import SWEEPS, TrialRecord, record_failure
from tests.report.builder import config, result, write


def test_runs_are_found_at_any_depth(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b", seed=1)
    write(tmp_path / "c", seed=2)
    (tmp_path / "a" / "b" / "rte-prefix-1" / "checkpoints").mkdir()
    loaded = load([tmp_path])
    assert [run.seed for run in loaded.runs] == [1, 2] and not loaded.problems
    assert load([tmp_path / "c" / "rte-prefix-2"]).runs[0].seed == 2


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("result.json", '{"task": "rte", "meth', "result.json cannot be read: it is no valid JSON"),
        ("result.json", None, "result.json cannot be read: No such file"),
        ("result.json", "[1]", "result.json cannot be read: it holds a list, not an object"),
        ("result.json", '{"task": "rte", "method": "prefix"}', "lacks model, seed, metric, scores"),
        ("status.json", '{"status"', "status.json cannot be read: it is no valid JSON"),
        ("status.json", '{"status": "interrupted"}', "interrupted"),
        ("status.json", '{"status": "failed", "error": {"message": "loss\\nis nan"}}', "failed loss is nan"),
        ("config.yaml", "{a: [", "config.yaml cannot be read"),
        ("config.yaml", None, "config.yaml cannot be read"),
    ],
)
def test_damage_is_one_line_and_the_rest_is_reported(name: str, content: str | None, told: str, tmp_path: Path) -> None:
    write(tmp_path, seed=1, score=0.9)
    hurt = write(tmp_path, seed=2, score=0.7)
    (hurt / name).unlink()
    if content is not None:
        (hurt / name).write_text(content)
    rows = group(load([tmp_path]).runs)
    lines = problems(rows)
    assert len(lines) == 1 and told in lines[0] and lines[0].startswith("rte-prefix-2: ") and "\n" not in lines[0]
    assert max(score for row in rows for score in row.scores) == 0.9
    if name != "config.yaml":
        (row,) = rows
        assert len(row.rest) == 1 and row.rest[0].seed == 2  # beside the run it belongs to
        assert "seed 2" in row.notes[0]


def test_a_dead_process_is_not_running(tmp_path: Path) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    alive = {"status": "running", "pid": os.getpid(), "host": platform.node(), "started": now}
    write(tmp_path, seed=1, status=alive)
    write(tmp_path, seed=2, status={**alive, "pid": 2**22 - 1})
    write(tmp_path, seed=3, status={**alive, "pid": 2**22 - 1, "host": "elsewhere"})
    write(tmp_path, seed=4, status={**alive, "started": "2020-01-01T00:00:00Z"})  # this process took its number
    assert [run.status for run in load([tmp_path]).runs] == ["running", "killed", "running", "killed"]


@pytest.mark.parametrize("score", [None, float("nan"), float("inf"), "0.7", True])
def test_a_score_that_is_no_number_counts_as_damage(score: object, tmp_path: Path) -> None:
    write(tmp_path, seed=1, score=0.5)
    write(tmp_path, seed=2, score=score)  # type: ignore[arg-type]
    (row,) = group(load([tmp_path]).runs)
    assert row.scores == [0.5] and row.summary is not None and row.summary.mean == 0.5
    assert "test score (accuracy) is missing or not a number" in problems([row])[0]


def test_an_older_format_counts_and_is_told(tmp_path: Path) -> None:
    hurt = write(tmp_path)
    content = json.loads((hurt / "result.json").read_text())
    for name in ("memory", "timing", "versions"):
        del content[name]
    (hurt / "result.json").write_text(json.dumps(content))
    (row,) = group(load([tmp_path]).runs)
    assert row.scores == [0.7] and row.median("timing.train_s") is None
    assert problems([row]) == ["rte-prefix-1: older format, without timing, memory, versions"]


def test_places_without_runs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    loaded = load([tmp_path / "empty", tmp_path / "gone", tmp_path / "notes.txt"])
    assert not loaded.runs
    assert [line.split(" ", 1)[1].split(";")[0] for line in loaded.problems] == [
        "holds no run",
        "does not exist",
        "is no folder, .jsonl, .json or .csv file",
    ]


def test_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text(json.dumps(result(seed=1)) + "\n[3]\n" + json.dumps(result(seed=2))[:50])
    runs = load([path]).runs
    assert [(run.name, run.status) for run in runs] == [
        ("all.jsonl:1", "done"),
        ("all.jsonl:2", "damaged"),
        ("all.jsonl:3", "damaged"),
    ]


def test_settings_of_seeds_are_one_object(tmp_path: Path) -> None:
    for seed in (1, 2):
        write(tmp_path, seed=seed, settings={"run.root": f"r{seed}", "logger.tags": [str(seed)]})
    first, second = load([tmp_path]).runs
    assert first.settings is second.settings
    assert first.settings is not None and "seed" not in first.settings.values and "run" not in first.settings.values


def test_settings_file_forms() -> None:
    settings, seed = read_settings("method:\n  name: a\nlist:\n- 1\n- 2\nseed: 7\nrun:\n  tags:\n  - x\n")
    assert seed == 7 and settings.values == {"method": {"name": "a"}, "list": [1, 2]}
    assert read_settings("seed: 8\n" + "method:\n  name: a\nlist:\n- 1\n- 2\n")[0] is settings
    for text in ("", "- 1", "a: [", "a: *x"):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            read_settings(text)


def test_dotted_keys_become_nested() -> None:
    assert nested({"a.b.c": 1, "a.b.d": 2, "e": 3}) == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}


def test_config_of_the_builder_is_like_a_real_one() -> None:
    from mmpt.config.schema import Config

    assert set(config()) <= set(Config.__dataclass_fields__)


def test_trials_that_failed_before_they_had_a_directory_are_shown(tmp_path: Path) -> None:
    write(tmp_path, seed=1)
    settings = {"task": {"name": "rte"}, "method": {"name": "prefix"}, "model": {"name": "bundled"}, "seed": 2}
    record_failure(tmp_path, TrialRecord.of("method.lr.prefix=-1 seed=2", settings, "bad value\nof lr"))
    (tmp_path / SWEEPS / "20260101-1").mkdir()
    (tmp_path / SWEEPS / "20260101-1" / "trials.jsonl").write_text('{"overrides": "seed=3"}\n')  # of an older version
    rows = group(load([tmp_path]).runs)
    assert {(row.task, row.method, row.model) for row in rows} == {("rte", "prefix", "bundled")}
    assert problems(rows) == ["method.lr.prefix=-1 seed=2: failed bad value of lr"]


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a")
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    rows = group(load([tmp_path]).runs)
    assert problems(rows) == [f"{tmp_path}/closed: damaged cannot be read (Permission denied)"]
    assert rows[0].scores == [0.7]
