"""What format 1 left behind is read: an adapter, runs; newer formats are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmpt.config.compose import compose, read_command_line
from mmpt.config.schema import Config
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.errors import AdapterError, RunError
from mmpt.report.load import load as load_runs
from mmpt.runs.failures import SWEEPS
from mmpt.runs.record import RunRecord, read_result
from mmpt.training.settings import check
from mmpt.utils.files import newer_format
from tests.fixtures.write import COMMAND

FIXTURES = Path(__file__).parent / "fixtures" / "1"


def change(path: Path, **values: Any) -> dict[str, Any]:
    """Replace keys of a JSON file; returns what it was."""
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**before, **values}), encoding="utf-8")
    return before


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURES / "finished", tmp_path / "finished")


def test_the_adapter_predicts_what_it_predicted(finished: Path) -> None:
    import mmpt

    rows = [json.loads(line) for line in (finished / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    predictor = mmpt.load(finished)
    evaluator, config = predictor.evaluator, settings()
    split = evaluator.prepare(load_splits(Task(config.task), config.data, config.seed).test)
    found = evaluator.rows(split, evaluator.predict(predictor.model, split, evaluator.config.decoding[0]))
    assert len(found) == len(rows) == 24
    for row, old in zip(found, rows, strict=True):
        assert row["source"] == old["source"] and row["prediction"] == old["prediction"]
        assert row["probabilities"] == pytest.approx(old["probabilities"], abs=1e-4)


def settings(*words: str) -> Config:
    """What the fixtures were made with."""
    conf = Path(__file__).resolve().parents[1] / "conf"
    return check(compose(read_command_line([*COMMAND, *words], conf).overrides, conf))


def test_the_report_reads_both_runs(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES, tmp_path, dirs_exist_ok=True)
    (tmp_path / SWEEPS / "a-sweep").mkdir(parents=True)
    shutil.move(tmp_path / "ledger.jsonl", tmp_path / SWEEPS / "a-sweep" / "trials.jsonl")
    runs = {run.name: run for run in load_runs([tmp_path]).runs}
    assert runs["finished"].status == "done" and not runs["finished"].problem
    assert runs["finished"].score() is not None and runs["finished"].seed == 3
    assert runs["interrupted"].status == "running"  # it was on another machine: nobody here can tell
    assert set(runs) == {"finished", "interrupted"}  # a sweep's trials.jsonl is passed over


def test_an_interrupted_run_is_refused_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Format 1 had the checkpoints of transformers' Trainer."""
    from mmpt.cli import main
    from mmpt.training.identity import identify

    run = shutil.copytree(FIXTURES / "interrupted", tmp_path / "run")
    assert main([*COMMAND, f"run.dir='{run}'"]) == 2
    assert "run.overwrite=true" in capsys.readouterr().err
    change(run / "status.json", config_fingerprint=identify(settings()).fingerprint)
    assert main([*COMMAND, f"run.dir='{run}'"]) == 2
    assert "was written by an older mmpt (format 1) and cannot be resumed" in capsys.readouterr().err
    assert main([*COMMAND, f"run.dir='{run}'", "run.overwrite=true"]) == 0


def test_newer_formats_are_refused_by_name(finished: Path, tmp_path: Path) -> None:
    from mmpt.models.adapter_files import read_adapter

    change(finished / "adapter" / "adapter.json", format=2)
    with pytest.raises(AdapterError, match="has adapter format 2, this mmpt reads up to 1; update mmpt"):
        read_adapter(finished)
    change(finished / "result.json", format=2)
    with pytest.raises(RunError, match=r"result\.json has format 2, this mmpt reads up to 1; update mmpt"):
        read_result(finished)
    (run,) = load_runs([finished]).runs
    assert run.status == "damaged" and "its result has format 2" in run.problem
    status = change(finished / "status.json", format=2)
    (run,) = load_runs([finished]).runs
    assert run.status == "damaged" and "it has format 2, this mmpt reads up to 1; update mmpt" in run.problem
    before = sorted(path.read_bytes() for path in finished.rglob("*.json*"))
    with pytest.raises(RunError, match=r"run directory .* has format 2"):
        RunRecord.open(finished, resolved={}, fingerprint=status["config_fingerprint"])
    assert sorted(path.read_bytes() for path in finished.rglob("*.json*")) == before
    folder = tmp_path / "root" / SWEEPS / "failed"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text('{"format": 2, "overrides": "seed=1"}\n', encoding="utf-8")
    (run,) = load_runs([tmp_path / "root"]).runs
    assert "the record of a failed trial is invalid (has format 2" in run.problem


@pytest.mark.parametrize("found", [2, 0, True, "1", None, 1.0])
def test_a_format_that_is_no_known_number_is_refused(found: object) -> None:
    assert newer_format({"format": found}, 1) and not newer_format({}, 1) and not newer_format({"format": 1}, 1)
