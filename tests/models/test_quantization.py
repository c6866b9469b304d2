"""Frozen networks in 8 and 4 bits: what is quantised, that gradients are those of the rounded weights, and refusals."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import mmpt
from mmpt.bundled.tasks import records
from mmpt.cli import CONF, main
from mmpt.config.compose import compose
from mmpt.config.schema import ModelConfig
from mmpt.errors import ConfigError
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.engine import build_engine
from mmpt.models.fingerprint import weights_fingerprint
from mmpt.models.footprint import INT8_STEP, shape_of
from mmpt.models.peak import Peak
from mmpt.models.quantization import numbers, quantised, weight_bytes
from mmpt.training.fingerprint import run_fingerprint
from mmpt.training.settings import check, find_problems, first_line
from tests import tiny

INSTALLED = importlib.util.find_spec("bitsandbytes") is not None
needs_bitsandbytes = pytest.mark.skipif(not INSTALLED, reason="bitsandbytes is not installed")
KINDS = ("t5", "bart", "gpt2", "llama", "bert")
WAYS = ("int8", "nf4")


def loaded(folder: Path, model_type: str, quantization: str, **more: Any) -> Backbone:
    values = {"architecture": model_type, "quantization": quantization, "dtype": "float32", **more}
    return load_backbone(ModelConfig("tiny", source="path", path=str(folder), **values))


def batch(model_type: str) -> dict[str, Tensor]:
    ids, mask, labels = tiny.batch()
    labels = torch.tensor([[0], [1], [1], [0], [1]]) if model_type == "bert" else labels
    return {"input_ids": ids % 40, "attention_mask": mask, "labels": labels.clamp(max=39)}


def layers_in_bits(model: nn.Module) -> set[str]:
    import bitsandbytes as bnb

    kinds = (bnb.nn.Linear8bitLt, bnb.nn.Linear4bit)
    return {path for path, module in model.named_modules() if isinstance(module, kinds)}


@needs_bitsandbytes
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model_type", KINDS)
def test_the_chosen_layers_are_quantised_and_take_the_computed_bytes(
    model_type: str, way: str, folder_of: Callable[[str], Path]
) -> None:
    folder = folder_of(model_type)
    model = loaded(folder, model_type, way).model
    config = ModelConfig("tiny", source="path", path=str(folder), architecture=model_type)
    network = shape_of(config).network(config)
    assert layers_in_bits(model) == set(quantised(network)) != set()
    assert sum(map(numbers, model.parameters())) == sum(p.numel() for p in network.parameters())
    stored = {value.untyped_storage().data_ptr(): value for value in model.state_dict().values()}
    real = sum(value.nbytes for name, value in stored.items())
    computed = weight_bytes(network, torch.float32)[way]
    assert computed <= real <= computed + 300 * len(quantised(network))  # notes and tables that each layer has


@needs_bitsandbytes
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["multimask", "lora"])
@pytest.mark.parametrize("model_type", KINDS)
def test_an_adapter_trains_as_on_the_rounded_weights(
    model_type: str, method: str, way: str, folder_of: Callable[[str], Path]
) -> None:
    folder = folder_of(model_type)
    gradients = []
    rounded = loaded(folder, model_type, way)
    twin = loaded(folder, model_type, "none")
    copy_weights(rounded.model, twin.model)
    for backbone in (rounded, twin):
        model = engine(backbone, method)
        model(**batch(model_type)).loss.backward()
        trained = [parameter for parameter in model.method.parameters() if parameter.grad is not None]
        assert trained and all(parameter.dtype == torch.float32 for parameter in trained)
        gradients.append(torch.cat([torch.as_tensor(parameter.grad).flatten() for parameter in trained]))
    found, wanted = gradients
    assert wanted.norm() > 0
    if way == "nf4":  # rounds the weights alone
        assert (found - wanted).norm() < 1e-4 * wanted.norm()
    else:  # int8 rounds what enters a layer too, to 1/254 of the row's largest number
        assert torch.cosine_similarity(found, wanted, dim=0) > 0.99


def engine(backbone: Backbone, method: str) -> AdaptedModel:
    torch.manual_seed(1)
    model = build_engine(backbone, parse(method, {})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name and parameter.requires_grad:
                parameter.normal_(std=0.1)
    return model


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give a network the weights that another one's integers stand for; GPT-2's layers have them transposed."""
    from peft.utils.integrations import dequantize_module_weight

    for name in layers_in_bits(source):
        layer: Any = target.get_submodule(name)
        value = dequantize_module_weight(source.get_submodule(name))
        layer.weight.data.copy_(value.T if isinstance(layer, Conv1D) else value)


@needs_bitsandbytes
@pytest.mark.parametrize(("model_type", "options"), [("t5", {}), ("llama", {"layers": "last_2"})])
def test_the_bytes_of_a_step_are_as_computed(
    model_type: str, options: dict[str, Any], folder_of: Callable[[str], Path]
) -> None:
    peaks = {}
    ids = torch.ones(16, 64, dtype=torch.long)
    for way in ("none", *WAYS):
        model = build_engine(loaded(folder_of(model_type), model_type, way), parse("multimask", options)).train()
        given = {"input_ids": ids, "attention_mask": ids, "labels": ids[:, :4]}
        model(**given).loss.backward()
        model.zero_grad()
        parts = (vars(layer.state).values() for layer in model.modules() if hasattr(layer, "state"))  # bitsandbytes'
        moved = [value for part in parts for value in part if isinstance(value, Tensor)]
        with Peak([*model.parameters(), *model.buffers(), *model.backbone.state_dict().values(), *moved]) as peak:
            model(**given).loss.backward()
        peaks[way] = peak.most
    assert peaks["nf4"] == pytest.approx(peaks["none"], rel=0.05)
    assert peaks["none"] < peaks["int8"] < INT8_STEP * peaks["none"]


@needs_bitsandbytes
@pytest.mark.parametrize("way", WAYS)
def test_absorbed_attention_and_the_cache_give_the_same_losses(way: str, folder_of: Callable[[str], Path]) -> None:
    from mmpt.cache.activations import compute

    folder = folder_of("t5")
    given = batch("t5")
    losses = []
    for cross in ("projected", "absorbed"):
        model = build_engine(loaded(folder, "t5", way, cross_attention="absorbed"), parse("prefix", {})).eval()
        torch.manual_seed(1)
        for parameter in model.method.parameters():
            parameter.data.normal_()
        model.prepare(cross)
        with torch.no_grad():
            losses.append(model(**given).losses)
            if cross == "absorbed":
                lengths = given["attention_mask"].sum(dim=1).tolist()
                states = compute(model, lengths, [(range(5), given)]).batch(range(5))
                losses.append(model(**given, **states).losses)
    for found in losses[1:]:
        torch.testing.assert_close(found, losses[0], rtol=1e-3, atol=1e-3)


@needs_bitsandbytes
def test_the_fingerprint_of_the_weights_holds_their_scales(folder_of: Callable[[str], Path]) -> None:
    folder = folder_of("t5")
    prints = {way: loaded(folder, "t5", way).fingerprint for way in ("none", *WAYS)}
    assert len(set(prints.values())) == 3
    assert loaded(folder, "t5", "nf4").fingerprint == prints["nf4"]
    model = loaded(folder, "t5", "int8").model
    next(value for name, value in model.state_dict().items() if name.endswith(".SCB")).mul_(2)
    assert weights_fingerprint(model) != prints["int8"]


@needs_bitsandbytes
def test_merging_into_quantised_weights_is_refused(folder_of: Callable[[str], Path]) -> None:
    model = build_engine(loaded(folder_of("t5"), "t5", "int8"), parse("lora", {}))
    with pytest.raises(ConfigError, match="cannot be merged into quantised weights"):
        mmpt.merge_adapter(model.backbone)


@needs_bitsandbytes
@pytest.mark.parametrize("way", WAYS)
def test_a_run_on_a_quantised_network_predicts_the_same_when_loaded(way: str, tmp_path: Path) -> None:
    words = ["task=rte", "method=multimask", f"model.quantization={way}", "trainer.max_steps=3", "logger=none"]
    few = ["data.limit_train=32", "data.limit_validation=16", "data.limit_test=16", f"run.dir={tmp_path / 'run'}"]
    assert main([*words, *few]) == 0
    lines = (tmp_path / "run/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    wanted = [json.loads(line)["prediction"] for line in lines]
    predictor = mmpt.load(tmp_path / "run")
    assert [row["prediction"] for row in predictor.predict(records("rte")["test"][:16])] == wanted
    result = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    assert result["parameters"]["total"] - result["parameters"]["trainable"] == 919_552


def composed(*words: str) -> Any:
    return compose([f"++{word}" if "." in word.partition("=")[0] else word for word in words], CONF)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were there: nothing here loads a model."""
    monkeypatch.setattr("mmpt.config.rules.find_spec", lambda name: object())


def test_the_fingerprint_of_a_run_holds_it_and_without_it_nothing_changes(installed: None) -> None:
    plain, default = check(composed("model.quantization=none")), check(composed())
    ways = {run_fingerprint(check(composed(f"model.quantization={way}"))) for way in WAYS}
    assert run_fingerprint(plain) == run_fingerprint(default) and len(ways | {run_fingerprint(default)}) == 3
    words = composed("model.quantization=nf4")
    assert "on bundled in nf4, seed" in first_line(check(words), words)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["method=full", "model.quantization=int8"], "method=full trains the network's own weights"),
        (["method=ia3", "model.quantization=nf4", "model.dtype=bfloat16"], "set model.dtype=float32"),
        (["model=t5_small_random", "model.quantization=nf4"], "model.source=random has none"),
        (["model.quantization=int4"], "choose from: none, int8, nf4"),
    ],
)
def test_what_cannot_work_is_refused_before_loading(words: list[str], part: str, installed: None) -> None:
    (problem,) = find_problems(composed(*words))
    assert part in problem[1] and "\n" not in problem[1]


def test_without_the_package_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmpt.config.rules.find_spec", lambda name: None)
    (problem,) = find_problems(composed("model.quantization=int8", "logger=none"))
    assert problem[0] == "model.quantization" and "-e '.[quantization]'" in problem[1]
