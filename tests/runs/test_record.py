from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mmpt.errors import RunError
from mmpt.runs.environment import environment
from mmpt.runs.record import RunRecord, read_result
from mmpt.runs.result import Result
from mmpt.utils.files import read_jsonl, write_text
from tools.result_schema import schema

RESOLVED = {"task": {"name": "rte", "template": "hypothèse {h}"}, "seed": 0}


def make_result(**changes: Any) -> Result:
    score = {"accuracy": 0.7, "interval": [0.6, 0.8], "decoding": "ranking"}
    result = {
        "task": "rte",
        "method": "multimask",
        "model": "bundled",
        "data": {
            "name": "bundled",
            "bundled": True,
            "origin": "bundled miniature (synthetic)",
            "train": 90,
            "validation": 10,
            "test": 20,
            "truncated": 0,
        },
        "seed": 0,
        "metric": "accuracy",
        "metric_range": [0.0, 1.0],
        "scores": {"validation": score, "test": score, "majority": {"accuracy": 0.5}, "chance": {"accuracy": 0.5}},
        "parameters": {"trainable": 123, "total": 4567, "bytes": 1000, "groups": {"masks": 123}},
        "timing": {"step_ms_median": 12.5, "train_s": 3.0, "total_s": 5.0, "examples_per_s": 800.0},
        "memory": {"peak_bytes": None},
        "steps": 10,
        "epochs": 1,
        "best_step": 10,
        "data_fingerprint": "d",
        "backbone_fingerprint": "b",
        "warnings": [],
    }
    return Result.from_dict(result | changes)


def open_record(directory: Path, fingerprint: str = "f" * 64, **options: Any) -> RunRecord:
    return RunRecord.open(directory, resolved=RESOLVED, fingerprint=fingerprint, **options)


def status(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "status.json").read_text(encoding="utf-8"))


def test_new_run_is_self_describing(tmp_path: Path) -> None:
    record = open_record(tmp_path / "a" / "ü run")
    assert record.state == "new"
    assert yaml.safe_load((record.directory / "config.yaml").read_text(encoding="utf-8")) == RESOLVED
    versions = json.loads((record.directory / "environment.json").read_text(encoding="utf-8"))["versions"]
    assert versions["transformers"] and versions["torch"]
    assert status(record.directory)["status"] == "running"
    assert status(record.directory)["pid"] == os.getpid()


def test_done_run_is_found_and_left_alone(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    written = record.finish(make_result())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    again = open_record(tmp_path)
    assert again.state == "done"
    assert read_result(again.directory) == written and written.config == RESOLVED
    assert written.config_fingerprint == "f" * 64 and written.versions and not written.problems()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("end", ["interrupt", "fail", "close"])
def test_unfinished_run_is_resumed(tmp_path: Path, end: str) -> None:
    record = open_record(tmp_path)
    record.log(1, {"loss": 1.0})
    record.fail(ValueError("disk on fire")) if end == "fail" else getattr(record, end)()
    expected = {"interrupt": "interrupted", "fail": "failed", "close": "running"}[end]
    assert status(tmp_path)["status"] == expected
    if end == "fail":
        assert status(tmp_path)["error"]["type"] == "ValueError"
        assert status(tmp_path)["error"]["message"] == "disk on fire"
    again = open_record(tmp_path)
    assert again.state == "resume"
    assert status(tmp_path)["status"] == "running"
    assert "error" not in status(tmp_path)
    assert [line["step"] for line in read_jsonl(again.metrics_path)] == [1]


def test_other_configuration_needs_overwrite(tmp_path: Path) -> None:
    open_record(tmp_path, "a" * 64).finish(make_result())
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "old").touch()
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match=r"aaaaaaaaaaaa.*bbbbbbbbbbbb.*run\.dir.*run\.overwrite=true"):
        open_record(tmp_path, "b" * 64)
    record = open_record(tmp_path, "b" * 64, overwrite=True)
    assert record.state == "new"
    assert not (record.directory / "result.json").exists() and not record.adapter_dir.exists()
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "config.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match=r"no run \(config\.yaml\).*run\.dir=DIR"):
        open_record(tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "mine"


def test_leftovers_of_a_killed_start_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".status.json.123.tmp").touch()
    assert open_record(tmp_path).state == "new"


def test_run_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write .*file: File exists"):
        open_record(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match=r"cannot write .*Permission denied.*run\.root=DIR"):
        open_record(tmp_path / "run")
    tmp_path.chmod(0o700)


def _hold(directory: Path, ready: Any) -> None:
    open_record(directory)
    ready.set()
    time.sleep(60)


def test_lock_is_exclusive_and_ends_with_its_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait() and process.pid is not None
    with pytest.raises(RunError, match=f"in use by pid {process.pid}"):
        open_record(tmp_path)
    with pytest.raises(RunError, match="in use"):
        open_record(tmp_path, overwrite=True)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert open_record(tmp_path).state == "resume"


def test_racing_processes_have_one_winner(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom mmpt.runs.record import RunRecord\nfrom mmpt.errors import RunError\n"
        "try:\n    record = RunRecord.open(pathlib.Path(sys.argv[1]), resolved={}, fingerprint='f')\n"
        "    print('won', flush=True)\n    sys.stdin.read()\nexcept RunError as error:\n    print(error, flush=True)\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "run")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(4)
    ]
    lines = [racer.stdout.readline() for racer in racers if racer.stdout is not None]
    for racer in racers:
        racer.communicate()
    assert sum(line == "won\n" for line in lines) == 1
    assert sum("in use by pid" in line for line in lines) == 3


def test_metrics_are_flushed_plain_and_truncated(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    sizes = []
    for step in range(5):
        record.log(step, {"loss": np.float32(0.5), "grad": float("nan"), "phase": "train\u2028x"})
        sizes.append(record.metrics_size())
    lines = list(read_jsonl(record.metrics_path))
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[0]["loss"] == 0.5 and lines[0]["grad"] is None and lines[0]["phase"] == "train\u2028x"
    assert record.truncate_metrics(sizes[2])
    assert [line["step"] for line in read_jsonl(record.metrics_path)] == [0, 1, 2]
    assert not record.truncate_metrics(sizes[3])  # the file has lost a line


def test_half_a_line_is_dropped_on_resume(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    record.log(1, {"loss": 1.0})
    with record.metrics_path.open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    record.close()
    again = open_record(tmp_path)
    again.log(3, {"loss": 0.5})
    assert [line["step"] for line in read_jsonl(again.metrics_path)] == [1, 3]


def test_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"metrics\.jsonl:2 is no valid JSON"):
        list(read_jsonl(path))


def test_predictions(tmp_path: Path) -> None:
    record = open_record(tmp_path)
    rows = [{"id": "1", "prediction": "héllo", "scores": np.float64(0.25)}]
    assert record.write_predictions("test", rows).name == "predictions.jsonl"
    path = record.write_predictions("validation", iter(rows))
    assert path.name == "predictions_validation.jsonl"
    assert list(read_jsonl(path)) == [{"id": "1", "prediction": "héllo", "scores": 0.25}]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"steps": -1}, "steps"),
        ({"seed": "1"}, "seed"),
        ({"metric": None}, "metric"),
        ({"scores": {"validation": {"accuracy": 0.5}}}, r"scores\.validation\.decoding is missing.*scores\.test"),
        ({"parameters": {"trainable": 1}}, r"parameters\.total is missing.*parameters\.groups"),
        ({"data": 3}, r"data\.train"),
        ({"warnings": None}, "warnings"),
    ],
)
def test_an_incomplete_result_is_rejected(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    record = open_record(tmp_path)
    with pytest.raises(RunError, match=rf"result of .* is not complete: .*{key}"):
        record.finish(make_result(**change))
    assert not (tmp_path / "result.json").exists()
    assert status(tmp_path)["status"] == "running"


def test_not_a_number_is_no_score(tmp_path: Path) -> None:
    good = make_result()
    bad = replace(good, scores=replace(good.scores, majority={"accuracy": float("nan")}))
    with pytest.raises(RunError, match=r"scores\.majority"):
        open_record(tmp_path).finish(bad)


def test_the_schema_in_the_docs_is_made_from_the_dataclasses(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "docs" / "result.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == schema(), "see tools/result_schema.py"
    written = open_record(tmp_path).finish(make_result()).to_dict()
    assert set(written) == set(schema()["properties"]) and set(schema()["required"]) == set(written) - {"format"}
    assert schema()["properties"]["scores"]["additionalProperties"]["required"] == ["decoding", "interval"]


def test_what_does_not_fit_is_none_and_what_is_absent_is_named() -> None:
    content = make_result().to_dict() | {"seed": True, "memory": [], "steps": 10**400, "more": 1, "data": {"train": -5}}
    content["scores"] |= {"test": {"accuracy": 0.5, "f1": "high", "interval": [1, None]}}
    del content["timing"]
    read = Result.from_dict(content)
    assert (read.seed, read.steps, read.data.train, read.memory.peak_bytes) == (None, None, None, None)
    assert read.score() == 0.5 and read.scores.splits["test"].metrics == {"accuracy": 0.5}
    assert read.scores.splits["test"].interval is None and read.baseline("majority") == 0.5
    assert "timing" in read.absent and "timing" not in read.to_dict()
    assert Result.from_dict({}).score() is None


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_result_is_told(tmp_path: Path, content: str) -> None:
    record = open_record(tmp_path)
    record.finish(make_result())
    (record.directory / "result.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"result\.json .*run\.overwrite=true"):
        open_record(tmp_path)
    assert open_record(tmp_path, overwrite=True).state == "new"


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_text(path, "old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match=r"cannot write .*result\.json: No space left on device; free space"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_full_disk_does_not_hide_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = open_record(tmp_path)
    monkeypatch.setattr("mmpt.runs.status.write_json", lambda *_: (_ for _ in ()).throw(RunError("full")))
    record.fail(ValueError("the real one"))
    monkeypatch.undo()
    assert open_record(tmp_path).state == "resume"  # and the lock was given back


def test_environment() -> None:
    found = environment()
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert found["cores"] >= 1
    assert found["git"] is None or len(found["git"]["commit"]) == 40


def test_record_needs_no_torch() -> None:
    modules = "mmpt.runs.record, mmpt.runs.console, mmpt.runs.loggers"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
