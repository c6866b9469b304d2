"""The activation cache changes nothing but the time, and is refused where it would lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.cli import main
from mmpt.models.cache import compute
from tests.methods.test_all import CASES, case
from tests.tiny import adapted, batch

SMALL = ["data.limit_train=96", "data.limit_validation=24", "data.limit_test=40", "logger=none"]
CONSTANT = [name for name in CASES if case(name).prevents_cache is None]


def test_which_methods_can_use_it() -> None:
    assert set(CONSTANT) == {
        name
        for name, (method, options) in CASES.items()
        if method in ("prefix", "multimask") and "encoder" not in options.get("sites", ["decoder"])
    }
    assert len(CONSTANT) >= 8


@pytest.mark.parametrize("name", CONSTANT)
def test_cached_and_plain_losses_agree_over_steps(name: str) -> None:
    ids, mask, labels = batch()
    lengths = mask.sum(dim=1).tolist()
    losses = []
    for cached in (False, True):
        model = case(name).train()
        given: dict[str, Any] = {}
        if cached:
            order = [3, 0, 4, 2, 1]
            whole = compute(model, lengths, [(order, {"input_ids": ids[order], "attention_mask": mask[order]})])
            given = whole.batch(list(range(5)), ids.shape[1])
            assert whole.states.shape[0] == sum(lengths), "padding is kept"
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        torch.manual_seed(4)
        found = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = model(ids, mask, labels, **given).loss
            assert loss is not None
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        losses.append(found)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][-1] != losses[0][0]


def test_dropout_in_the_frozen_network_prevents_it() -> None:
    from mmpt.models.adapted import AdaptedModel
    from tests.tiny import backbone

    assert AdaptedModel.build(backbone(), "prefix", {}, dropout=True).prevents_cache == "model.dropout=backbone"
    assert adapted("prefix", {"sites": ["encoder"]}).prevents_cache == "method.sites has encoder"


def run(directory: Path, *overrides: str) -> dict[str, Any]:
    assert main([f"run.dir='{directory}'", *SMALL, "trainer.num_train_epochs=2", *overrides]) == 0
    return json.loads((directory / "result.json").read_text(encoding="utf-8"))


def test_a_run_with_it_and_one_without_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_it = run(tmp_path / "with")
    assert "encoder: ran once" in capsys.readouterr().out
    without = run(tmp_path / "without", "cache=off", "model.cross_attention=projected")
    assert "encoder: runs in every step (cache=off)" in capsys.readouterr().out
    assert with_it["scores"] == without["scores"]
    lines = []
    for name in ("with", "without"):
        text = (tmp_path / name / "metrics.jsonl").read_text()
        lines.append([row["validation/loss"] for row in map(json.loads, text.splitlines()) if "validation/loss" in row])
    assert lines[0] == pytest.approx(lines[1], abs=1e-4)


def test_prediction_gives_the_bits_of_a_cached_run(tmp_path: Path) -> None:
    import mmpt
    from mmpt.bundled.tasks import records

    run(tmp_path / "r", "data.limit_test=null")
    rows = [json.loads(line) for line in (tmp_path / "r" / "predictions.jsonl").read_text().splitlines()]
    found = mmpt.load(tmp_path / "r").predict(records("rte")["test"])
    assert [row["probabilities"] for row in found] == [row["probabilities"] for row in rows]


def test_what_prevents_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "smop", "method=smop")
    assert "encoder: runs in every step (method=smop puts prompts before the encoder)" in capsys.readouterr().out
    assert main([f"run.dir='{tmp_path / 'x'}'", *SMALL, "method.sites=[encoder]", "cache=ram"]) == 2
    assert "cache=ram can't be had: method.sites has encoder" in capsys.readouterr().err


def test_a_run_too_short_to_profit_does_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "r", "trainer.max_steps=2")
    assert "trainer.max_steps ends before every example is seen" in capsys.readouterr().out


def test_too_little_memory_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmpt.training.run.free_bytes", lambda _: 1000)
    run(tmp_path / "r")
    assert "it would take 0.0 GB of memory; cache=ram insists" in capsys.readouterr().out
