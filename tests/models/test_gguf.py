"""A model in a GGUF file: the same logits as the network that was written into it, dequantised once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mmpt.cli import main
from mmpt.config.schema import ModelConfig
from mmpt.errors import ModelError
from mmpt.models.model_files import dequantised, local_folder

needs_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="gguf is not installed")
WORDS = ["<end>", *"abcdefghijklmnopqrstuvwxyzĠ.,:?_'", "Ġa", "Ġb"]


def write(path: Path) -> Qwen2ForCausalLM:
    """A file as llama.cpp writes it, in float32."""
    import gguf

    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    tied = {"tie_word_embeddings": False, "rope_theta": 10000.0, "rms_norm_eps": 1e-6}
    config = Qwen2Config(vocab_size=len(WORDS), intermediate_size=64, max_position_embeddings=128, **size, **tied)
    model = Qwen2ForCausalLM(config).eval()
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3] + [1] * (len(WORDS) - 1))
    writer.add_token_merges(["Ġ a", "Ġ b"])
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 2)
    for name, value in model.state_dict().items():
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@needs_gguf
def test_it_is_dequantised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMPT_CACHE", str(tmp_path / "cache ü"))
    file = tmp_path / "tiny.gguf"
    wanted = write(file)
    folder = dequantised(file)
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    assert dequantised(file) == folder and (folder / "model.safetensors").stat().st_mtime_ns == weights
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing is left of the work"
    ids = torch.tensor([[1, 5, 9, 2]])
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(folder)(ids).logits, wanted(ids).logits)
    assert local_folder(ModelConfig(name="m", source="path", path=str(file))) == folder


@needs_gguf
@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all" * 10])
def test_what_is_no_model_is_one_line(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMPT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"model.path=.*broken.gguf is no GGUF file that transformers can read"):
        dequantised(file)
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_without_the_package_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmpt.config.check.find_spec", lambda name: None)
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    assert main(["task=rte", "model=local", f"model.path={file}", f"run.root={tmp_path}"]) == 2
    assert "needs a package that is not installed: python -m pip install gguf" in capsys.readouterr().err
    assert main(["task=rte", "model=local", f"model.path={tmp_path}/none.gguf", f"run.root={tmp_path}"]) == 2
    assert (
        "none.gguf is no directory; give the folder that holds config.json, or a GGUF file" in capsys.readouterr().err
    )
