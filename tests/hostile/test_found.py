"""Defects that generated cases found, each kept from returning. Those of data files, configurations, reports of YAML,
metrics, adapters' values and checkpoints are beside their properties."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmpt.cache.store import Damaged, Store
from mmpt.data.templates import field_text
from mmpt.errors import AdapterError, ConfigError, DataError
from mmpt.models.adapter_files import DESCRIPTION, WEIGHTS, read_adapter
from mmpt.predictor import load as load_predictor
from mmpt.report.load import load
from mmpt.runs.failures import TrialRecord
from mmpt.runs.loggers import RunInfo
from mmpt.runs.record import read_status
from mmpt.runs.result import Result
from mmpt.sweep.outcomes import Outcome, Outcomes
from mmpt.sweep.table import ranked
from mmpt.training.checkpoint import last_checkpoint
from tests.adapters import save
from tests.commands import cache as cache_main
from tests.commands import predict as predict_main
from tests.commands import report as report_main
from tests.hostile.test_stored import KEY, TENSORS, fill
from tests.report.builder import result, write

DEEP = "[" * 100_000


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl", "adapter/adapter.safetensors"])
def test_a_result_replaces_no_file_of_a_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path)
    (run / "adapter").mkdir()
    kept = run / name
    kept.touch()
    rows, before = tmp_path / "rows.jsonl", kept.read_bytes()
    rows.write_text('{"a": 1}\n')
    assert predict_main([str(run), "--input", str(rows), "--output", str(kept)]) == 2
    if kept.suffix == ".jsonl":
        assert report_main([str(run), "--out", str(kept)]) == 2
    assert "would replace a file of the run" in capsys.readouterr().err and kept.read_bytes() == before
    assert predict_main([str(run), "--input", str(rows), "--output", str(rows)]) == 2
    assert "is the input itself" in capsys.readouterr().err and rows.read_text() == '{"a": 1}\n'


def test_a_saved_adapter_is_not_replaced_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, kept = tmp_path / "rows.jsonl", tmp_path / "adapter.json"
    rows.write_text('{"a": 1}\n')
    kept.write_text("{}")
    assert predict_main([str(tmp_path), "--input", str(rows), "--output", str(kept)]) == 2
    assert "would replace a file of the run" in capsys.readouterr().err and kept.read_text() == "{}"


def test_a_number_of_very_many_digits_is_no_text() -> None:
    with pytest.raises(DataError, match=r'row 1: field "text" is a number of more than 1000 digits'):
        field_text({"text": 10**5000}, "text", "row 1")


@pytest.fixture
def entry(tmp_path: Path) -> Store:
    store = Store(tmp_path, 1.0)
    store.fetch(KEY, TENSORS, fill, {"backbone": "b\x1b[2J\u202e"}, lambda _: None)
    return store


def test_the_list_of_a_cache_commands_no_terminal(entry: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["list", "--json"]):
        assert cache_main([*words, "--dir", str(entry.directory)]) == 0
        told = capsys.readouterr().out
        assert "\x1b" not in told and "\u202e" not in told


def test_a_cache_description_that_nests_without_end(entry: Store, capsys: pytest.CaptureFixture[str]) -> None:
    entry.path(KEY, "json").write_text(DEEP)
    assert entry.description(KEY) == {}
    assert cache_main(["verify", "--dir", str(entry.directory)]) == 1


@pytest.mark.parametrize(
    "lie",
    [
        {"data_offsets": [10**12, 10**12 + 24]},
        {"data_offsets": [-8, 16]},
        {"data_offsets": []},
        {"shape": [-2, 3]},
        {"shape": [2.5]},
        {"shape": None},
        {"dtype": "I8"},
    ],
    ids=str,
)
def test_a_cache_header_that_lies(lie: dict[str, Any], entry: Store) -> None:
    from mmpt.cache.entry import Mapped

    place = entry.path(KEY, "safetensors")
    blob = place.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    text = json.dumps({**header, "means": {**header["means"], **lie}}).encode()
    place.write_bytes(len(text).to_bytes(8, "little") + text + blob[8 + length :])
    with place.open("rb", buffering=0) as file, pytest.raises(ValueError, match=r"tensor|header"):
        Mapped(place, file, read=True)
    with pytest.raises(Damaged):
        entry.open(KEY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("adapter"), "task=rte", "method=multimask") / "adapter"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "1e999", "adapter.json is damaged"),
        ("method", '{"name": "multimask", "options": 3}', "adapter.json is damaged"),
        ("max_length", "-1", "max_length=-1 is too small"),
        ("max_length", "1000000000000000000000000000000", "is too large; it must be at most 1000000"),
        ("max_length", '"x"', "max_length must be an integer"),
        ("seed", "-1", "seed=-1 must lie between"),
        ("task", DEEP, "adapter.json is damaged"),
    ],
    ids=["format", "options", "short", "long", "text", "seed", "deep"],
)
def test_a_description_that_cannot_be(key: str, value: str, message: str, whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / WEIGHTS, tmp_path / WEIGHTS)
    content = {**json.loads((whole / DESCRIPTION).read_bytes()), key: "HERE"}
    (tmp_path / DESCRIPTION).write_text(json.dumps(content).replace('"HERE"', value))
    with pytest.raises(AdapterError, match=message):
        load_predictor(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask_granularity", "mayer", "is not allowed; choose from: layer, head, key_value"),
        ("num_virtual_tokens", 10**9, "numbers, but only"),
        ("num_routes", 10**9, "numbers, but only"),
        ("layers", 3, "method.layers must be text"),
    ],
)
def test_options_that_cannot_be(name: str, value: Any, message: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    content = read_adapter(whole).description
    method = {**content["method"], "options": {**content["method"]["options"], name: value}}
    (tmp_path / DESCRIPTION).write_text(json.dumps({**content, "method": method}))
    with pytest.raises(AdapterError, match=message):
        load_predictor(tmp_path)


@pytest.mark.parametrize(
    "place", ["status.json", "result.json", "predictions.jsonl", "environment.json", "metrics.jsonl"]
)
def test_a_report_of_files_that_nest_without_end(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "runs", "prefix", 1, answers=[True, False])
    run = write(tmp_path / "runs", "smop", 1, 0.8, answers=[True, True])
    (run / place).write_text(f"{DEEP}\n")
    words = [str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--formats", "md,peft"]
    assert report_main(words) in (0, 1)
    assert "prefix" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv"])
def test_an_export_that_nests_without_end(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f'name,config\na,"{DEEP}"\n' if name == "r.csv" else DEEP)
    for run in load([tmp_path / name]).runs:
        assert run.status == "damaged"


def test_a_metric_that_is_no_name() -> None:
    assert Result.from_dict({"scores": {"test": {"a": 1}}, "metric": ["a"]}).score() is None
    assert Result.from_dict({"scores": [1], "metric": "a"}).score() is None
    assert Result.from_dict({"steps": 10**400}).steps is None


@pytest.mark.parametrize(
    "content", ['{"number": "x"}', "[1]", "null", DEEP, '{"number": 0, "trial": 3, "state": "done"}']
)
def test_an_invalid_outcome_of_a_trial(content: str, tmp_path: Path) -> None:
    (tmp_path / "3.json").write_text(content)
    assert all(outcome.number == 3 and outcome.result is None for outcome in Outcomes(tmp_path).news(set()))


@pytest.mark.parametrize("stated", [{}, {"metric": ["a"]}, {"scores": 3, "metric": "a"}, {"scores": {"validation": 1}}])
def test_a_trial_whose_result_lacks_its_score(stated: dict[str, Any]) -> None:
    outcome = Outcome(0, "done", TrialRecord("method=prefix"), result=Result.from_dict(stated))
    assert outcome.score() is None
    assert "none" in ranked([outcome])


def test_a_table_of_trials_commands_no_terminal() -> None:
    found = Result.from_dict(result(task="a\x1b[2J\u202e"))
    outcome = Outcome(0, "done", TrialRecord("method=prefix"), result=found)
    assert all(sign.isprintable() or sign == "\n" for sign in ranked([outcome]))


@pytest.mark.parametrize(
    "status", [{"status": ["done"]}, {"status": "failed", "error": 3}, {"status": "done", "config_fingerprint": ["f"]}]
)
def test_a_status_of_another_kind(status: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"config_fingerprint": "f", **status}))
    assert read_status(tmp_path, "f") is None


def test_folders_that_only_look_like_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-x", "checkpoint-", "checkpoint-1e3", f"checkpoint-{'9' * 100}", "checkpoint-²"):
        (tmp_path / name).mkdir()
    assert last_checkpoint(tmp_path) is None
    assert len(list(tmp_path.iterdir())) == 5


def test_an_id_of_a_run_that_is_a_path(tmp_path: Path) -> None:
    run = RunInfo("a", None, {}, tmp_path)
    assert run.stored_id("wandb") == run.stored_id("wandb")
    for odd in ("../../outside", "", "a" * 65, "\x1b[2J"):
        (tmp_path / "wandb" / "run_id").write_text(odd)
        with pytest.raises(ConfigError, match="holds no id of a run"):
            run.stored_id("wandb")
