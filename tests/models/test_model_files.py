"""What identifies a local model: its files for a run, what its tokenizer does for an adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import mmpt
from mmpt.bundled import MODEL_DIR
from mmpt.cli import main
from mmpt.config.schema import ModelConfig
from mmpt.data.tokenizer import tokenizer_fingerprint
from mmpt.errors import AdapterError, ModelError
from mmpt.models.model_files import files_fingerprint, local_folder
from tests.adapters import save
from tests.commands import predict

FEW = ["data.limit_train=16", "data.limit_validation=8", "data.limit_test=8", "trainer.max_steps=2", "logger=none"]
ROW = {"premise": "a cat sat on the mat", "hypothesis": "a cat sat"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return shutil.copytree(MODEL_DIR, tmp_path / "model")


def swap_pieces(folder: Path) -> None:
    """Let two words of a tokenizer change places."""
    (folder / "spiece.model").unlink(missing_ok=True)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = content["model"]["vocab"]
    one, two = [index for index, (piece, _) in enumerate(pieces) if len(piece) > 4][:2]
    pieces[one], pieces[two] = pieces[two], pieces[one]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_run_on_other_files_is_another_run(name: str, model: Path) -> None:
    before = files_fingerprint(model)
    (model / "README.md").write_text("words", encoding="utf-8")
    assert files_fingerprint(model) == before == files_fingerprint(MODEL_DIR), "neither notes nor the place count"
    content = (model / name).read_bytes()
    (model / name).write_bytes(content + b"\n")
    assert files_fingerprint(model) != before
    (model / name).write_bytes(content)
    assert files_fingerprint(model) == before


def test_a_finished_run_is_not_shown_for_other_weights(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*FEW, "task=rte", "model=local", f"model.path='{model}'", f"run.dir='{tmp_path / 'run'}'"]
    assert main(command) == 0 and "shown again" not in capsys.readouterr().out
    assert main(command) == 0 and "shown again" in capsys.readouterr().out
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    assert main(command) == 2
    assert "or to another content of a local model" in capsys.readouterr().err


def test_only_local_models_have_a_folder(model: Path) -> None:
    assert local_folder(ModelConfig(name="bundled", source="bundled")) is None
    assert local_folder(ModelConfig(name="m", source="path", path=str(model))) == model
    with pytest.raises(ModelError, match=r"is no directory; give a directory written by save_pretrained"):
        local_folder(ModelConfig(name="m", source="path", path=str(model / "nothing")))


def test_a_tokenizer_is_what_it_does(model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = tokenizer_fingerprint(tokenizer)
    tokenizer(["a text", "of two"], padding=True, truncation=True, max_length=3)  # leaves settings in it
    tokenizer.save_pretrained(tmp_path / "again")
    assert tokenizer_fingerprint(tokenizer) == found
    assert tokenizer_fingerprint(AutoTokenizer.from_pretrained(tmp_path / "again")) == found
    swap_pieces(model)
    assert tokenizer_fingerprint(AutoTokenizer.from_pretrained(model)) != found


def test_an_adapter_is_refused_on_another_tokenizer(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path / "run", "task=rte", "method=prefix")
    same = mmpt.load(run, model=model).predict([ROW])
    swap_pieces(model)
    with pytest.raises(AdapterError, match=r"was trained with another tokenizer .* accept it with --force"):
        mmpt.load(run, model=model)
    with pytest.raises(AdapterError, match="was trained with another tokenizer"):
        mmpt.load_all({"a": run}, model=str(model))
    forced = mmpt.load(run, model=model, force=True).predict([ROW])
    assert forced[0]["probabilities"].keys() == same[0]["probabilities"].keys()
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    command = [str(run), "--model", str(model), "--input", str(tmp_path / "rows.jsonl")]
    assert predict(command) == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1
    assert predict([*command, "--force"]) == 0 and len(capsys.readouterr().out.splitlines()) == 1
    description = json.loads((run / "adapter" / "adapter.json").read_text(encoding="utf-8"))
    assert len(description.pop("tokenizer")) == 64
    (run / "adapter" / "adapter.json").write_text(json.dumps(description), encoding="utf-8")  # as older ones are
    assert mmpt.load(run, model=model).predict([ROW]) == forced
