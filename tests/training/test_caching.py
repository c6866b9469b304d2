"""Runs with the cache: on disk, in memory, or without; the same figures, and the first lines say which."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmpt.bundled import MODEL_DIR
from mmpt.cli import main
from mmpt.training.evaluate import Evaluator

SMALL = ["data.limit_train=64", "data.limit_validation=16", "data.limit_test=16", "logger=none"]
SMALL += ["evaluation.bootstrap=0", "trainer.num_train_epochs=1"]
LAST = ["method.sites=[encoder,decoder,cross]", "method.layers=last_1"]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("MMPT_CACHE", str(directory))
    return directory


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Words of the command line -> the lines about encoder and cache, the scores, the validation losses."""

    def start(name: str, *words: str) -> tuple[list[str], dict[str, Any], list[float]]:
        assert main([f"run.dir='{tmp_path / name}'", *SMALL, *words]) == 0
        said = [row for row in capsys.readouterr().out.splitlines() if row.startswith(("encoder:", "cache:"))]
        scores = json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))["scores"]
        rows = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        return said, scores, [row["validation/loss"] for row in rows if "validation/loss" in row]

    return start


def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a run that can't be."""
    assert main([f"run.dir='{tmp_path / 'failed'}'", *SMALL, *words]) == 2
    (text,) = capsys.readouterr().err.splitlines()
    return text


def blocked(directory: Path) -> None:
    """Put a file where the cache's directory should be."""
    directory.write_text("")


@pytest.mark.parametrize("more", [[], pytest.param(LAST, marks=pytest.mark.slow)], ids=["decoder", "last"])
def test_on_disk_in_memory_and_without_agree(more: list[str], store: Path, run: Any) -> None:
    first, *scored = run("first", *more)
    part = " up to layer 2 of 3" if more else ""
    assert len(first) == 1 and first[0].startswith(f"encoder: ran once{part}, ") and f" in {store} in " in first[0]
    again, *same = run("again", "cache=disk", *more)
    assert again[0].startswith(f"encoder: read from the cache{part}, ") and f" in {store}, verified in " in again[0]
    memory, *also = run("memory", "cache=ram", *more)
    assert memory[0].startswith(f"encoder: ran once{part}, ") and " cached in memory in " in memory[0]
    assert scored == same == also
    without, scores, losses = run("without", "cache=off", "model.cross_attention=projected", *more)
    assert without == ["encoder: runs in every step (cache=off)"]
    assert scores == scored[0]
    assert losses == pytest.approx(scored[1], abs=1e-4)


@pytest.mark.slow
def test_methods_and_seeds_share_entries(run: Any) -> None:
    run("first")
    told, *_ = run("second", "method=prefix", "method.sites=[decoder]", "seed=2")
    assert told[0].startswith("encoder: read from the cache, ")
    told, *_ = run("third", "data.max_length=20")
    assert told[0].startswith("encoder: ran once, ")


@pytest.mark.parametrize("more", [pytest.param([], marks=pytest.mark.slow), LAST], ids=["decoder", "last"])
def test_prediction_gives_the_bits_of_a_cached_run(more: list[str], tmp_path: Path, run: Any) -> None:
    import mmpt
    from mmpt.bundled.tasks import records

    run("r", "data.limit_test=null", *more)
    rows = [json.loads(line) for line in (tmp_path / "r" / "predictions.jsonl").read_text().splitlines()]
    found = mmpt.load(tmp_path / "r").predict(records("rte")["test"])
    assert [row["probabilities"] for row in found] == [row["probabilities"] for row in rows]


def test_what_prevents_it_is_named(tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told, *_ = run("smop", "method=smop")
    assert told == ["encoder: runs in every step (method=smop puts a prompt before the text)"]
    for mode in ("ram", "disk"):
        text = fails(tmp_path, capsys, "method.sites=[encoder]", f"cache={mode}")
        assert f"cache={mode} is impossible: method=multimask has a prefix in every layer of site encoder" in text


def test_a_run_too_short_to_profit_computes_only_what_evaluations_read(run: Any) -> None:
    told, *_ = run("short", "trainer.max_steps=1")
    why = "trainer.max_steps ends before every example is seen"
    assert told[0] == f"encoder: runs in every step of training ({why})"
    assert told[1].startswith("encoder: ran once, ")
    told, *_ = run("another", "trainer.max_steps=1", "seed=2")
    assert told[1].startswith("encoder: read from the cache, ")
    run("long")
    told, *_ = run("short again", "trainer.max_steps=1", "run.overwrite=true", "seed=3")
    assert told[0].startswith("encoder: read from the cache, ")


def test_a_directory_that_cannot_be_written(
    tmp_path: Path, store: Path, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked(store)
    told, *_ = run("auto")
    assert told[0] == f"cache: {store} cannot be written (File exists); memory is used instead"
    assert told[1].startswith("encoder: ran once, ") and " in memory " in told[1]
    text = fails(tmp_path, capsys, "cache=disk")
    assert f"cache=disk is impossible: {store} cannot be written (File exists); set cache.dir" in text


def test_more_data_than_the_bound(tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told, *_ = run("auto", "cache.max_gb=0.001")
    assert "more than cache.max_gb=0.001 allows" in told[0] and told[0].endswith("; memory is used instead")
    assert " in memory " in told[1]
    assert "more than cache.max_gb=0.001 allows" in fails(tmp_path, capsys, "cache=disk", "cache.max_gb=0.001")


def test_too_little_disk_and_memory_is_told(store: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked(store)
    monkeypatch.setattr("mmpt.training.caching.free_bytes", lambda _: 1000)
    told, *_ = run("r")
    assert told[0] == f"cache: {store} cannot be written (File exists)"
    assert told[1] == "encoder: runs in every step (it would take 0.0 GB of memory; cache=ram insists)"


def test_a_damaged_entry_is_computed_again(store: Path, run: Any) -> None:
    _, *scored = run("first")
    (largest, *_) = sorted(store.glob("*.safetensors"), key=lambda path: -path.stat().st_size)
    os.truncate(largest, 1000)
    told, *again = run("again")
    assert told[0].startswith(f"cache: entry {largest.name[:12]} in {store} is damaged (1000 bytes of ")
    assert told[1].startswith("encoder: ran once, ")
    assert again == scored


def test_a_directory_deleted_during_a_run(store: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, *scored = run("first")
    predict = Evaluator.predict

    def delete(self: Evaluator, *args: Any, **kwargs: Any) -> Any:
        shutil.rmtree(store, ignore_errors=True)
        return predict(self, *args, **kwargs)

    monkeypatch.setattr(Evaluator, "predict", delete)
    told, *again = run("again")
    assert told[0].startswith("encoder: read from the cache, ") and not store.exists()
    assert again == scored


@pytest.mark.slow
def test_a_backbone_changed_on_disk_under_the_same_name(tmp_path: Path, run: Any) -> None:
    backbone = tmp_path / "backbone"
    shutil.copytree(MODEL_DIR, backbone)
    words = ["model=local", f"model.path={backbone}"]
    _, *scored = run("first", *words)
    weights = load_file(backbone / "model.safetensors")
    name = "encoder.block.0.layer.1.DenseReluDense.wo.weight"
    save_file({**weights, name: weights[name] * 2}, backbone / "model.safetensors", metadata={"format": "pt"})
    told, *changed = run("weights", *words)
    assert told[0].startswith("encoder: ran once, ") and changed[1] != scored[1]
    save_file(weights, backbone / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((backbone / "config.json").read_text())
    (backbone / "config.json").write_text(json.dumps({**config, "layer_norm_epsilon": 0.1}))
    told, *changed = run("config", *words)
    assert told[0].startswith("encoder: ran once, ") and changed[1] != scored[1]
    (backbone / "config.json").write_text(json.dumps(config))
    told, *same = run("restored", *words)
    assert told[0].startswith("encoder: read from the cache, ") and same == scored


@pytest.mark.slow
def test_states_stored_in_half_precision(store: Path, run: Any) -> None:
    _, _, losses = run("exact")
    exact = sum(path.stat().st_size for path in store.iterdir())
    told, _, rounded = run("half", "cache.dtype=bfloat16")
    assert " cached as bfloat16 in " in told[0]
    assert sum(path.stat().st_size for path in store.iterdir()) < 1.6 * exact
    assert rounded == pytest.approx(losses, abs=0.05) and rounded != losses
    assert torch.get_default_dtype() == torch.float32
