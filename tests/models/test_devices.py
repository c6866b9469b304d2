"""Networks on several devices: the numbers are those of one, weights come from disk, prefixes follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mmpt
from mmpt.bundled.tasks import records
from mmpt.cache.activations import compute
from mmpt.cli import main
from mmpt.config.schema import ModelConfig
from mmpt.errors import ConfigError
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.devices import dispatched, spread_of
from mmpt.models.engine import build_engine
from mmpt.models.gradient_checkpointing import checkpoint_layers
from tests import devices, tiny, tiny_encoders
from tests.tolerance import assert_close, assert_gradients_close, terms_of

FEW: dict[str, Any] = {"num_virtual_tokens": 4}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("t5", "multimask", {**FEW, "layout": "paper", "sites": ["decoder"], "router_noise": 0.0}),
    ("t5", "multimask", {**FEW, "router_input": "encoder", "router_noise": 0.0}),
    ("t5", "multimask", {**FEW, "sites": ["encoder", "decoder", "cross"], "layers": "last_1", "router_noise": 0.0}),
    ("t5", "prefix", {**FEW, "init": "vocab"}),
    ("t5", "prefix_plus", {}),
    ("t5", "mept", {"router_noise": 0.0}),
    ("t5", "smop", {"router_noise": 0.0}),
    ("t5", "dept", {"max_length": 9}),
    ("bart", "apt", FEW),
    ("gpt2", "multimask", {**FEW, "layers": "last_2", "router_input": "layer_below", "router_noise": 0.0}),
    ("llama", "multimask", {**FEW, "layout": "peft", "router_noise": 0.0}),
    ("llama", "apt", {**FEW, "layers": "last_2"}),
    ("llama", "prompt", FEW),
    ("gemma2", "prefix", {**FEW, "layers": "last_1"}),
    ("bert", "multimask", {**FEW, "layers": "last_2", "router_noise": 0.0}),
    ("bert", "prompt", FEW),
]


def loaded(folder: Path, model_type: str, share: float | None = 0.5, **more: Any) -> Backbone:
    """The checkpoint, with room in memory for a share of what is no word embedding; None: on one device."""
    attention = "eager" if model_type == "gemma2" else "sdpa"
    values = {"architecture": model_type, "dtype": "float32", "attention": attention, **more}
    config = ModelConfig("tiny", source="path", path=str(folder), **values)
    if share is None:
        return load_backbone(config)
    model = load_backbone(config).model
    total, words = sum(value.numel() for value in model.parameters()), model.get_input_embeddings().weight.numel()
    # besides the embeddings, accelerate leaves room for the largest part: here the head, where it is none of them
    size = (
        4
        * (2 * words + share * (total - 2 * words) if model_type == "llama" else words + share * (total - words))
        / 1000
    )
    values |= {"device_map": "auto", "max_memory": {"cpu": f"{size:.0f}KB"}}
    return load_backbone(ModelConfig("tiny", source="path", path=str(folder), **values))


def stop_at(step: int) -> Callable[[Any, int], None]:
    """In place of ``Monitor.end_step``: a run that is interrupted after a step."""

    def end_step(_: Any, done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return end_step


def engine(backbone: Backbone, method: str, options: dict[str, Any]) -> AdaptedModel:
    """A method on a backbone, with gates that are open."""
    torch.manual_seed(1)
    model = build_engine(backbone, parse(method, options))
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


def batch(model_type: str) -> dict[str, Tensor]:
    if model_type == "bert":
        return tiny_encoders.batch()
    return dict(zip(("input_ids", "attention_mask", "labels"), tiny.batch(), strict=True))


def outcome(model: AdaptedModel, given: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of a batch, and the gradient of everything that is trained."""
    model.zero_grad()
    output = model(**given)
    output.loss.backward()
    return output.losses.detach(), {name: value.grad for name, value in model.method.named_parameters()}  # type: ignore[misc]


@pytest.mark.parametrize(("model_type", "method", "options"), CASES)
def test_every_number_is_that_of_one_device(
    model_type: str, method: str, options: dict[str, Any], folder_of: Callable[[str], Path]
) -> None:
    folder, given = folder_of(model_type), batch(model_type)
    there, here = (loaded(folder, model_type, share) for share in (0.5, None))
    assert dispatched(there.model) and not dispatched(here.model)
    assert any(value.is_meta for value in there.model.parameters()), there.model.hf_device_map
    assert there.fingerprint == here.fingerprint
    spread, whole = engine(there, method, options), engine(here, method, options)
    found, wanted = outcome(spread, given), outcome(whole, given)
    terms = terms_of(whole, given["input_ids"].numel())
    assert_close(found[0], wanted[0], terms)
    gradients = [{name: value for name, value in part[1].items() if value is not None} for part in (found, wanted)]
    assert gradients[1], "nothing is trained"
    assert_gradients_close(*gradients, terms)
    assert there.has(here.fingerprint), "after passes too"
    candidates = [[0], [1]] if model_type == "bert" else [[17, 33, 1], [40, 1]]
    with torch.no_grad():
        ranked = [model.eval().rank(model.start(given), candidates) for model in (spread, whole)]
        assert_close(*ranked, terms)
        if model_type != "bert":
            written = [model.generate(model.start(given), max_new_tokens=4) for model in (spread, whole)]
            assert torch.equal(*written)
        if whole.cacheable_layers.count is not None and model_type not in ("gpt2", "llama", "gemma2"):
            lengths = given["attention_mask"].sum(dim=1).tolist()
            states = compute(spread, lengths, [(range(5), given)]).batch(range(5))
            assert_close(spread(**given, **states).losses, wanted[0], terms)
    mmpt.remove_adapter(there.model)
    again = outcome(engine(there, method, options), given)
    assert torch.equal(again[0], found[0]), "what an adapter leaves behind"


@pytest.mark.parametrize(("model_type", "method", "options"), CASES)
def test_what_a_layer_needs_follows_to_its_device(model_type: str, method: str, options: dict[str, Any]) -> None:
    shape = {"num_layers": 3} if model_type == "t5" else {}
    backbone = (tiny_encoders if model_type == "bert" else tiny).backbone(model_type, **shape)
    devices.spread(backbone.model)
    given, candidates = batch(model_type), [[0], [1]] if model_type == "bert" else [[17, 33, 1], [40, 1]]
    with devices.Strict():
        model = build_engine(backbone, parse(method, options)).train()
        losses, gradients = outcome(model, given)
        assert {value.device for value in gradients.values() if value is not None} == {losses.device} == {devices.HERE}
        checkpoint_layers(model.injection)
        outcome(model, given)
        checkpoint_layers(model.injection, False)
        with torch.no_grad():
            model.eval().rank(model.start(given), candidates)
            assert model.states(given).device == devices.HERE
            if model_type != "bert":
                model.generate(model.start(given), max_new_tokens=3)
            if model.cacheable_layers.count is not None and not model.injection.architecture.decoder_only:
                lengths = given["attention_mask"].sum(dim=1).tolist()
                model(**given, **compute(model, lengths, [(range(5), given)]).batch(range(5)))


@pytest.mark.parametrize("model_type", ["t5", "llama", "bert"])
def test_gradient_checkpointing_lets_weights_go_until_they_are_needed_again(
    model_type: str, folder_of: Callable[[str], Path]
) -> None:
    folder, given = folder_of(model_type), batch(model_type)
    model = engine(loaded(folder, model_type), "prefix", FEW)
    shapes = {value.shape for value in model.backbone.parameters() if value.is_meta and value.dim() == 2}
    shapes |= {torch.Size(reversed(shape)) for shape in shapes}
    weights: list[int] = []  # of layers on disk, whose numbers the backward pass holds

    def hold(value: Tensor) -> Tensor:
        weights[-1] += value.shape in shapes
        return value

    found = []
    for enabled in (False, True, True, False):  # a second call changes nothing
        checkpoint_layers(model.injection, enabled)
        weights.append(0)
        with torch.autograd.graph.saved_tensors_hooks(hold, lambda value: value):
            found.append(outcome(model, given))
    assert weights[1] == weights[2] < weights[0] == weights[3]
    for losses, gradients in found[1:]:
        assert torch.equal(losses, found[0][0])
        assert_gradients_close(gradients, found[0][1], terms_of(model, given["input_ids"].numel()))


@pytest.mark.parametrize("cross_attention", ["absorbed", "projected"])
def test_cross_attention_reads_weights_from_disk(cross_attention: str, folder_of: Callable[[str], Path]) -> None:
    folder, given = folder_of("t5"), batch("t5")
    models = [
        engine(loaded(folder, "t5", share, cross_attention=cross_attention), "prefix", FEW) for share in (0.5, None)
    ]
    found, wanted = (outcome(model, given) for model in models)
    terms = terms_of(models[1], given["input_ids"].numel())
    assert_close(found[0], wanted[0], terms)
    assert_gradients_close(found[1], wanted[1], terms)


def test_a_run_trains_resumes_and_predicts_as_on_one_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["task=rte", "logger=none", "data.limit_train=32", "data.limit_validation=16", "data.limit_test=16"]
    few += ["trainer.per_device_train_batch_size=8", "trainer.max_steps=6", "trainer.eval_steps=2"]
    few += ["trainer.eval_strategy=steps"]
    spread = ["model.device_map=auto", "model.max_memory={cpu: 1500KB}", f"run.dir={tmp_path / 'spread'}"]
    assert main([*few, f"run.dir={tmp_path / 'whole'}"]) == 0
    with monkeypatch.context() as patched:
        patched.setattr("mmpt.training.monitor.Monitor.end_step", stop_at(5))
        assert main([*few, *spread]) == 130
    capsys.readouterr()
    assert main([*few, *spread]) == 0
    shown = capsys.readouterr().out
    assert "network: 524.3 kB in memory, 3.2 MB on disk" in shown and "resuming an interrupted run from step 4" in shown
    results = [json.loads((tmp_path / name / "result.json").read_text("utf-8")) for name in ("whole", "spread")]
    for result in results:
        assert result["parameters"] == results[0]["parameters"]
        assert result["backbone_fingerprint"] == results[0]["backbone_fingerprint"]
        assert result["scores"] == results[0]["scores"]
    lines = (tmp_path / "spread/predictions.jsonl").read_text("utf-8").splitlines()
    wanted = [json.loads(line)["prediction"] for line in lines]
    predictor = mmpt.load(tmp_path / "spread")
    assert [row["prediction"] for row in predictor.predict(records("rte")["test"][:16])] == wanted


def test_a_head_is_trained_where_inputs_enter(folder_of: Callable[[str], Path]) -> None:
    backbone = loaded(folder_of("bert"), "bert", 0.3)
    places = backbone.model.hf_device_map
    assert places["classifier"] == "cpu" and "disk" in places.values() and " on disk" in spread_of(backbone.model)


@pytest.mark.parametrize(("memory", "part"), [({"9": "1GB"}, "names GPU 9"), ({"cpu": "100KB"}, "the word embeddings")])
def test_what_only_the_machine_or_the_network_knows(memory: dict[str, str], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_backbone(ModelConfig("tiny", dtype="float32", device_map="auto", max_memory=memory))


def test_layers_of_others_are_refused_where_weights_are_away(folder_of: Callable[[str], Path]) -> None:
    model = loaded(folder_of("t5"), "t5").model
    with pytest.raises(ConfigError, match="load the model without device_map"):
        mmpt.adapt(model, mmpt.LoRA())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(("model_type", "method", "options"), CASES)
def test_two_gpus_give_the_numbers_of_the_cpu(model_type: str, method: str, options: dict[str, Any]) -> None:
    outcomes = []
    for device in ("cpu", "cuda:0"):
        backbone = (tiny_encoders if model_type == "bert" else tiny).backbone(model_type)
        if device != "cpu":
            devices.spread(backbone.model, torch.device("cuda:0"), torch.device("cuda:1"))
        given = {name: value.to(device) for name, value in batch(model_type).items()}
        outcomes.append(outcome(engine(backbone, method, options), given))
    (wanted, gradients), (found, others) = outcomes
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-4, atol=1e-4)
    for name, gradient in gradients.items():
        if gradient is not None:
            torch.testing.assert_close(others[name].cpu(), gradient, rtol=1e-4, atol=1e-4)
