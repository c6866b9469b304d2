"""`mmpt models size`: what is computed without weights is what real models and real training steps take."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmpt.cache.activations import tensors_of
from mmpt.cache.entry import lay_out
from mmpt.cli.app import main
from mmpt.config.schema import ModelConfig
from mmpt.methods import parse
from mmpt.models.engine import build_engine
from mmpt.models.footprint import _shapes, footprint, shape_of
from mmpt.models.peak import Peak
from tests.tiny import LLAMA, SHAPE, backbone

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = {  # parameters, as the model pages on the hub state them
    "google-t5/t5-small": 60_506_624,
    "google-t5/t5-base": 222_903_552,
    "google-t5/t5-large": 737_668_096,
    "google/flan-t5-small": 76_961_152,
    "google/flan-t5-base": 247_577_856,
    "google/flan-t5-large": 783_150_080,
    "google/flan-t5-xl": 2_849_757_184,
    "google/flan-t5-xxl": 11_135_332_352,
    "google/mt5-small": 300_176_768,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-2-27b": 27_227_128_320,
    "google/gemma-3-270m": 268_098_176,
    "google/gemma-3-1b-pt": 999_885_952,
}
SIZES = {"batch": 4, "source": 12, "label": 3, "evaluation": 4}


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_shapes_have_the_published_parameters(name: str) -> None:
    config = ModelConfig("x", source="hub", path=name, architecture="auto")
    network = shape_of(config).network(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED[name]


def test_a_model_of_conf_that_is_known_states_that_architecture() -> None:
    known = [path for path in (ROOT / "conf/model").glob("*.yaml") for name in _shapes() if name in path.read_text()]
    assert len(known) > 10
    for path in known:
        text = path.read_text()
        (hub,), (stated,) = re.findall(r"^path: (\S+)", text, re.M), re.findall(r"^architecture: (\w+)", text, re.M)
        assert _shapes()[hub]["model_type"] == stated


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_peaks_are_those_of_a_real_step(architecture: str) -> None:
    values = SHAPE if architecture == "t5" else LLAMA
    options = parse("multimask", {"layers": "last_2"} if architecture == "llama" else {})
    config = ModelConfig("x", source="random", architecture=architecture, config=values)
    found = footprint(config, options, **SIZES)
    model = build_engine(replace(backbone(architecture), cross_attention="projected"), options).train()
    batch = {
        name: torch.ones(4, size, dtype=torch.long)
        for name, size in (("input_ids", 12), ("attention_mask", 12), ("labels", 3))
    }
    with Peak([*model.parameters(), *model.buffers()]) as peak:
        model(**batch).loss.backward()
    trained = sum(parameter.numel() for parameter in model.method.parameters())
    assert found.trained == trained
    assert found.parameters == sum(p.numel() for p in model.backbone.parameters()) - trained
    assert found.activations["float32"].step == pytest.approx(peak.most + 8 * trained, rel=0.05)
    assert found.weights["float32"] == 4 * (found.parameters + trained)
    _, _, stored = lay_out(tensors_of(model, [12] * 1000))
    header = stored - 1000 * (24 * 12 + 24) * 4
    if architecture == "t5":
        assert 1000 * (found.activations["float32"].cache or 0) == stored - header


def test_a_router_that_waits_for_texts_has_a_size() -> None:
    plain, waiting = (
        footprint(ModelConfig("x", source="random", config=SHAPE), parse("multimask", options), **SIZES)
        for options in ({}, {"router_standardize": True})
    )
    assert waiting.trained == plain.trained
    assert waiting.activations["float32"].step >= plain.activations["float32"].step


def test_the_cached_step_takes_less_and_what_prevents_the_cache_is_said() -> None:
    config = ModelConfig("x", source="random", config={**SHAPE, "num_layers": 6})
    sizes = {**SIZES, "source": 200}
    found = footprint(config, parse("multimask", {}), **sizes)
    assert found.uncached is None and (found.activations["bfloat16"].cached or 0) < found.activations["bfloat16"].step
    lora = footprint(config, parse("lora", {}), **sizes)
    assert lora.activations["float32"].cached is None and lora.uncached is not None
    assert lora.total("int8", cached=True) is None and lora.total("int8", cached=False) is not None


def test_the_command_on_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "size", "bundled", "--batch", "8", "--source", "64", "--label", "4"]) == 0
    said = capsys.readouterr().out
    total = sum(parameter.numel() for parameter in tiny_bundled().parameters())
    assert f"bundled: {total:,} parameters" in said and "8 texts of 64 tokens, labels of 4 tokens" in said
    assert re.search(r"^weights +3\.7 MB +1\.9 MB +1\.\d MB +1\.\d MB$", said, re.M)


def tiny_bundled() -> torch.nn.Module:
    from mmpt.models.backbone import load_backbone

    return load_backbone(ModelConfig("bundled")).model


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["t5_bas"], 'did you mean "t5_base"'),
        (["bundled", "method.layer=last_2"], "method.layer"),
        (["bundled", "--batch", "0"], "trainer.per_device_train_batch_size=0 is too small"),
        (["owner/unknown"], "without a hub"),
    ],
)
def test_what_cannot_be_computed_is_one_line(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmpt.models.backbone.fetch", _unreachable)
    assert main(["models", "size", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and part in said


def _unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("no hub")


def test_the_page_has_what_the_command_computes(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"^    mmpt (models size .*)$", page, re.M)
    assert main(words.split()) == 0 and "737,668,096 parameters" in capsys.readouterr().out
    rows = re.findall(r"^\| `(\S+/\S+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", page, re.M)
    assert len(rows) >= 12
    for name, parameters, *sizes in rows:
        config = ModelConfig("x", source="hub", path=name, architecture="auto")
        network = shape_of(config).network(config)
        assert f"{sum(p.numel() for p in network.parameters()) / 1e9:.2f}" == parameters
        if name not in ("google-t5/t5-large", "google/gemma-3-270m"):
            continue
        t5 = "t5" in name
        options = parse("multimask", {} if t5 else {"layers": "last_6"})
        found = footprint(config, options, batch=32 if t5 else 8, source=256, label=10, evaluation=64)
        computed = [found.total(kind, cached=True) for kind in ("bfloat16", "int8", "nf4")]
        assert [f"{(size or 0) / 1e9:.1f}" for size in computed] == sizes


@pytest.mark.slow
def test_a_measured_step_is_the_computed_one() -> None:
    from benchmarks.footprint import RETURNS, computed

    for way, size in computed("t5_base").items():
        command = [sys.executable, "-m", "benchmarks.memory", way, "t5_base", "96"]
        done = subprocess.run(
            command, env={**os.environ, **RETURNS}, capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert int(done.stdout.split()[-1]) == pytest.approx(size, rel=0.1), way
