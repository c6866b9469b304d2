"""A network in bfloat16 under adapters in float32: what trains, how closely, and where another type is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

import mmpt
from mmpt.bundled.tasks import records
from mmpt.cli import CONF, main
from mmpt.config.compose import compose
from mmpt.config.schema import Config, ModelConfig
from mmpt.errors import ConfigError
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.engine import build_engine
from mmpt.training import settings
from mmpt.training.fingerprint import run_fingerprint
from tests import tiny, tiny_encoders
from tests.methods.test_all import CASES, opened

KINDS = {"seq2seq": "t5", "causal": "llama", "encoder": "bert"}
OF_ONE_STACK = ("multimask", "prefix", "lora", "ia3", "full", "prompt", "ptuning", "smop", "dept", "residual")
EVERY = [
    *(("t5", name) for name in CASES),
    *((model_type, name) for model_type in ("llama", "bert") for name in OF_ONE_STACK),
]


def built(model_type: str, case: str, dtype: torch.dtype) -> AdaptedModel:
    """A method on a tiny network of a type."""
    made: Backbone = (tiny_encoders if model_type == "bert" else tiny).backbone(model_type)
    if model_type == "t5":  # weights as transformers draws them, and no kinks, at which rounding changes gradients most
        torch.manual_seed(0)
        config = AutoConfig.for_model("t5", **tiny.SHAPE, feed_forward_proj="gated-gelu")
        network = AutoModelForSeq2SeqLM.from_config(config, attn_implementation="mmpt_sdpa")
        made = replace(made, model=network.requires_grad_(False).eval())
    made.model.to(torch.bfloat16).to(dtype)  # the same weights in both
    name, options = CASES.get(case, (case, {"r": 2, "max_length": 9} if case == "dept" else {}))
    torch.manual_seed(1)
    model = opened(build_engine(made, parse(name, {**options, **_small(name)})))
    for key, value in model.named_parameters():
        if value.requires_grad and (".lora_B" in key or key.endswith("low_rank.B")):
            nn.init.normal_(value, std=0.1)  # at zero, A has no gradient
    return model.train()


def _small(method: str) -> dict[str, Any]:
    return {"router_noise": 0.0} if method in ("multimask", "smop", "mept") else {}


def batch(model_type: str) -> dict[str, Tensor]:
    if model_type == "bert":
        return tiny_encoders.batch()
    return dict(zip(("input_ids", "attention_mask", "labels"), tiny.batch(), strict=True))


def gradients(model: AdaptedModel, model_type: str) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(2)
    output = model(**batch(model_type))
    assert output.losses.dtype == torch.float32
    output.loss.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize(("model_type", "case"), EVERY)
def test_every_parameter_trains_in_float32_along_the_float32_gradient(model_type: str, case: str) -> None:
    wanted = gradients(built(model_type, case, torch.float32), model_type)
    model = built(model_type, case, torch.bfloat16)
    found = gradients(model, model_type)
    assert found.keys() == wanted.keys()
    for name, value in model.named_parameters():
        if value.requires_grad:
            assert value.dtype == torch.float32 and found[name].dtype == torch.float32, name
            assert torch.isfinite(found[name]).all() and found[name].abs().max() > 0, name
    a, b = (torch.cat([each[name].flatten() for name in wanted]).double() for each in (found, wanted))
    assert torch.cosine_similarity(a, b, dim=0) >= 0.999


def config(*words: str) -> Config:
    return settings.check(compose(list(words), CONF))


@pytest.mark.parametrize("fast", [("bfloat16", "this processor has amx_bf16"), ("float32", "nothing is faster")])
def test_auto_is_resolved_explained_and_recorded(fast: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "fast_dtype", lambda: fast)
    composed = compose(["model=t5_small"], CONF)
    found = settings.check(composed)
    assert found.model.dtype == settings.plain(found)["model"]["dtype"] == fast[0]
    assert f"on t5_small, seed 1, {fast[0]} ({fast[1]}); directory" in settings.first_line(found, composed)
    forced = config("model=t5_small", f"model.dtype={fast[0]}")
    assert run_fingerprint(forced) == run_fingerprint(found)
    other = "float32" if fast[0] == "bfloat16" else "bfloat16"
    assert run_fingerprint(config("model=t5_small", f"model.dtype={other}")) != run_fingerprint(found)


def test_the_toy_and_trained_networks_are_float32_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "fast_dtype", lambda: ("bfloat16", ""))
    assert config().model.dtype == "float32"
    composed = compose(["model=t5_small", "method=full"], CONF)
    found = settings.check(composed)
    assert found.model.dtype == "float32"
    assert "float32 (its weights are trained)" in settings.first_line(found, composed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=t5_base", "model.dtype=float16"], "hidden states of t5 models exceed float16's largest number"),
        (["model=mt5_small", "model.dtype=float16"], "hidden states of mt5 models .* set model.dtype=bfloat16"),
        (["method=full", "model.dtype=bfloat16"], "method=full trains the network's own weights, which are float32"),
        (["model.dtype=half"], "choose from: auto, float32, bfloat16, float16"),
    ],
)
def test_types_that_do_not_fit_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*words)


def test_loading_resolves_and_refuses_too() -> None:
    found = load_backbone(ModelConfig("bundled", dtype="auto")).model.dtype
    assert str(found) == f"torch.{settings.fast_dtype()[0]}"
    with pytest.raises(ConfigError, match="exceed float16"):
        load_backbone(ModelConfig("bundled", architecture="auto", dtype="float16"))


@pytest.mark.parametrize("method", ["multimask", "lora"])
def test_a_run_in_bfloat16_reloads_to_its_own_predictions(method: str, tmp_path: Path) -> None:
    words = ["task=cb", f"method={method}", "model.dtype=bfloat16", "trainer.max_steps=4", "logger=none"]
    assert main([*words, "data.limit_train=64", "data.limit_test=24", f"run.dir='{tmp_path / 'run'}'"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    predictors = [mmpt.load(tmp_path / "run") for _ in range(2)]
    assert predictors[0].backbone.model.dtype == torch.bfloat16
    given = records("cb")["test"]
    assert predictors[0].scores(given) == predictors[1].scores(given)
    found = {row["source"]: row["prediction"] for row in predictors[0].predict(given)}
    assert len(rows) == 24 and all(found[row["source"]] == row["prediction"] for row in rows)


def test_full_fine_tuning_takes_a_bfloat16_model_as_float32() -> None:
    model = tiny.backbone().model.to(torch.bfloat16)
    mmpt.adapt(model, mmpt.Full())
    assert {value.dtype for value in model.parameters()} == {torch.float32}
