"""Encoders with a classification head: every architecture, every method, pairs of texts, and a text for each label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpt.cache.activations import Activations, compute
from mmpt.config.schema import ModelConfig
from mmpt.errors import ConfigError, ModelError
from mmpt.methods import names, parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import load_state, read_adapter, save_adapter
from mmpt.models.backbone import load_backbone
from mmpt.models.engine import build_engine
from mmpt.models.gradient_checkpointing import checkpoint_layers
from mmpt.models.parts import head_parameters
from tests.tiny_encoders import ENCODERS, adapted, backbone, batch, checkpoint, choices, network
from tests.tolerance import assert_close, assert_gradients_close, terms_of

SMALL: dict[str, dict[str, Any]] = {  # what a method needs here
    "ptuning": {"reparametrization_hidden": 8},
    "residual": {"reparametrization_hidden": 8},
    "dept": {"num_virtual_tokens": 3, "r": 2, "max_length": 9},
    "smop": {"top_k": 4},
}
ORDER = [3, 0, 4, 2, 1]


def scores(model: AdaptedModel, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model.start(given).states


def sources(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: rows.flatten(0, -2) for name, rows in given.items()}


def cached(model: AdaptedModel, given: dict[str, Tensor]) -> Activations:
    """The activations of a batch, computed in another order."""
    flat = sources(given)
    order = list(reversed(range(len(flat["input_ids"]))))
    turned = {name: rows[order] for name, rows in flat.items() if name != "labels"}
    return compute(model, flat["attention_mask"].sum(dim=1).tolist(), [(order, turned)])


def with_states(model: AdaptedModel, given: dict[str, Tensor]) -> dict[str, Tensor]:
    rows = list(range(len(sources(given)["input_ids"])))
    return {**given, **cached(model, given).batch(rows)}


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.parametrize("method", [name for name in names() if name != "mept"])
def test_every_parameter_is_in_a_group_and_gets_gradient(method: str, model_type: str) -> None:
    model = adapted(method, SMALL.get(method), model_type).train()
    groups = model.method.parameter_groups()
    assert set(groups) == {*model.method.options.groups(), "head"}
    grouped = {id(parameter) for found in groups.values() for parameter in found}
    assert grouped == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(groups["head"]) == len(head_parameters(model.backbone)) > 0
    for key, parameter in model.method.named_parameters():  # these start at zero, and their partners have no gradient
        if "lora_B" in key or key == "low_rank.B" or key.startswith("gates."):
            torch.nn.init.normal_(parameter, std=0.1)
    model(**batch()).loss.backward()
    for key, parameter in model.method.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, key
        if method in ("prefix", "multimask") and not key.startswith("head."):  # no row, layer or slot is dead
            assert (parameter.grad.abs().amax(dim=0) > 0).all(), key


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.parametrize("method", ["prefix", "multimask", "smop"])
def test_an_example_does_not_depend_on_its_batch(method: str, model_type: str) -> None:
    model = adapted(method, SMALL.get(method), model_type).eval()
    for parameter in model.method.head.values():  # type: ignore[union-attr]
        torch.nn.init.normal_(parameter, std=0.5)  # a new head's scores differ little
    given = batch()
    together = scores(model, given)
    assert (together[0] - together[1]).abs().max() > 1e-3
    for row in range(len(together)):
        length = int(given["attention_mask"][row].sum())
        alone = {name: rows[row : row + 1, :length] for name, rows in given.items()}
        assert_close(scores(model, alone)[0], together[row], terms_of(model.backbone))
    turned = {name: rows[ORDER] for name, rows in given.items()}
    assert_close(scores(model, turned), together[ORDER], terms_of(model.backbone))
    wide = {name: torch.nn.functional.pad(rows, (0, 6)) for name, rows in given.items() if name != "labels"}
    assert_close(scores(model, wide), together, terms_of(model.backbone))


@pytest.mark.parametrize("model_type", ENCODERS)
def test_eager_and_sdpa_attention_agree(model_type: str) -> None:
    eager, sdpa = (adapted("multimask", {}, model_type, attention=name).eval() for name in ("eager", "sdpa"))
    assert_close(scores(eager, batch()), scores(sdpa, batch()), terms_of(sdpa.backbone))


@pytest.mark.parametrize("model_type", ENCODERS)
def test_without_a_method_scores_are_those_of_the_network(model_type: str) -> None:
    model = adapted("full", {}, model_type).eval()
    given = batch()
    ids = {name: given[name] for name in ("input_ids", "attention_mask")}
    if model_type in ("bert", "electra"):  # RoBERTa has one type of token, ModernBERT none
        ids["token_type_ids"] = given["token_type_ids"]
    with torch.no_grad():
        assert_close(scores(model, given), model.backbone(**ids).logits, terms_of(model.backbone))


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.parametrize("given", [batch(), choices()], ids=["classes", "choices"])
def test_cached_losses_are_the_plain_ones_over_steps(model_type: str, given: dict[str, Tensor]) -> None:
    classes = 1 if given["input_ids"].dim() == 3 else 2
    found = []
    for cache in (False, True):
        model = adapted("multimask", {"layers": "last_2"}, model_type, classes=classes).train()
        assert model.cacheable_layers.count == 2
        model.eval()  # a router's noise would differ between two calls
        data = with_states(model, given) if cache else given
        assert_close(scores(model, data), scores(model, given), terms_of(model.backbone))
        optimizer = torch.optim.SGD(model.method.parameters(), lr=0.1)
        torch.manual_seed(4)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = model.train()(**data).loss
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        found.append(losses)
        assert len(model.injection.architecture.layers(model.backbone, "self")) == 4, "the stack lost layers"
    assert found[0][-1] != found[0][0]
    assert found[1] == pytest.approx(found[0], abs=1e-4)


def gradients(model: AdaptedModel, forward: Callable[..., Any] | None = None) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(3)
    (model if forward is None else forward)(**batch()).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.parametrize("method", ["multimask", "lora"])
def test_checkpointing_gives_the_same_gradients(method: str, model_type: str) -> None:
    model = adapted(method, model_type=model_type).train()
    wanted = gradients(model)
    checkpoint_layers(model.injection)
    assert_gradients_close(gradients(model), wanted, terms_of(model, batch()["input_ids"].numel()))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ENCODERS)
def test_the_forward_pass_compiles(model_type: str) -> None:
    model = adapted("multimask", model_type=model_type).train()
    model.method.eval()  # no noise
    wanted = gradients(model)
    torch._dynamo.reset()
    found = gradients(model, torch.compile(model, backend="eager"))
    assert_gradients_close(found, wanted, terms_of(model, batch()["input_ids"].numel()))


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.parametrize("method", ["multimask", "smop"])
def test_each_choice_is_scored_by_itself(method: str, model_type: str) -> None:
    model = adapted(method, SMALL.get(method), model_type, classes=1).eval()
    given = choices()
    found = scores(model, given)
    apart = {name: rows for name, rows in sources(given).items() if name != "labels"}
    assert found.shape == (3, 2)
    assert_close(found.flatten(), scores(model, apart).flatten(), terms_of(model.backbone))
    with torch.no_grad():
        output, encoded = model(**given), model.start(given)
    wanted = -torch.log_softmax(found, dim=-1)[torch.arange(3), given["labels"][:, 0]]
    assert_close(output.losses, wanted, terms_of(model.backbone))
    assert_close(model.rank(encoded, [[0], [1]]).exp().sum(dim=1), torch.ones(3), terms=2)
    assert output.route_probs is not None and output.route_probs.shape == (3, 4)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_bfloat16_backbones_have_a_head_in_float32(model_type: str) -> None:
    built = backbone(model_type)
    built.model.to(torch.bfloat16)
    model = build_engine(built, parse("multimask", {})).train()
    output = model(**batch())
    output.loss.backward()
    assert {parameter.dtype for parameter in model.method.parameters()} == {torch.float32}
    assert output.losses.dtype == torch.float32 and torch.isfinite(output.losses).all()
    assert scores(model, batch()).dtype == torch.float32


@pytest.mark.parametrize(
    ("method", "model_type"),
    [*(("multimask", name) for name in ENCODERS), ("ptuning", "bert"), ("full", "bert"), ("lora", "modernbert")],
)
def test_an_adapter_with_its_head_comes_back_bit_by_bit(method: str, model_type: str, tmp_path: Path) -> None:
    first = adapted(method, SMALL.get(method), model_type).eval()
    torch.nn.init.normal_(next(iter(first.method.head.values())))  # type: ignore[union-attr]
    save_adapter(tmp_path, first.method, {})
    for_peft = {"adapter_config.json", "adapter_model.safetensors"} if method == "lora" else set()
    assert {path.name for path in tmp_path.iterdir()} == {"adapter.json", "adapter.safetensors"} | for_peft
    torch.manual_seed(5)
    saved = read_adapter(tmp_path)
    second = adapted(method, saved.options, model_type).eval()
    for parameter in second.method.parameters():
        torch.nn.init.normal_(parameter)
    load_state(second.method, saved.state, "here")
    assert torch.equal(scores(first, batch()), scores(second, batch()))


@pytest.mark.parametrize("init", ["vocab", "text"])
@pytest.mark.parametrize("model_type", ENCODERS)
def test_prefixes_may_start_from_the_backbones_own_keys_and_values(model_type: str, init: str) -> None:
    options = {"init": init, **({"init_text": "entails"} if init == "text" else {})}
    found = adapted("prefix", options, model_type).method.prefix["self"]  # type: ignore[index,union-attr]
    assert found.shape == (10, 2 * 4 * 24) and found.std() > 0.01


def test_a_prompt_follows_the_token_whose_state_the_head_reads() -> None:
    model = adapted("prompt", {"num_virtual_tokens": 2}).eval()
    given = batch()
    read: dict[str, Any] = {}
    hook = model.backbone.base_model.register_forward_pre_hook(
        lambda _, __, kwargs: read.update(kwargs), with_kwargs=True
    )
    encoded = model.encode(given["input_ids"], given["attention_mask"])
    hook.remove()
    embeddings, mask, contribution = read["inputs_embeds"], read["attention_mask"], encoded.contribution
    words = model.backbone.get_input_embeddings()(given["input_ids"])
    assert torch.equal(embeddings[:, 0], words[:, 0]) and torch.equal(embeddings[:, 3:], words[:, 1:])
    assert torch.equal(embeddings[:, 1:3], contribution.prompt.expand(5, -1, -1))  # type: ignore[union-attr]
    assert torch.equal(mask.sum(dim=1), given["attention_mask"].sum(dim=1) + 2)


def test_what_the_head_lacks_is_drawn_by_the_runs_seed_and_nothing_else_is() -> None:
    built = backbone("bert")
    kept = {name: value.clone() for name, value in built.model.named_parameters() if name not in built.fresh}
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = build_engine(built, parse("prefix", {}))
        drawn.append(model.method.head["classifier/weight"].detach().clone())  # type: ignore[index,union-attr]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert all(torch.equal(value, built.model.get_parameter(name)) for name, value in kept.items())


def test_lora_leaves_the_head_as_it_is() -> None:
    model = adapted("lora", {"target_modules": ["dense"]}, "roberta")
    assert set(model.method.head) == {  # type: ignore[arg-type]
        f"classifier/{layer}/{part}" for layer in ("dense", "out_proj") for part in ("weight", "bias")
    }
    assert not any("classifier" in name for name, _ in model.method.named_parameters() if name.startswith("lora"))


def test_what_a_head_cannot_do_is_refused_by_name() -> None:
    model = adapted("prefix")
    with pytest.raises(ConfigError, match=r"bert models with a classification head write no text; set evaluation"):
        model.generate(model.start(batch()))
    with pytest.raises(ConfigError, match=r"64 positions of this bert model; lower data\.max_length"):
        model.start(batch(longest=65))
    with pytest.raises(ConfigError, match="this backbone is no encoder-decoder"):
        adapted("mept")
    with pytest.raises(ConfigError, match="63 positions of this roberta model"):
        adapted("prefix", {}, "roberta").start(batch(longest=64))


def settings(place: Path) -> ModelConfig:
    return ModelConfig("tiny", "path", str(place), architecture="bert")


def test_a_base_checkpoint_lacks_its_head_alone(tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "base", ["a", "b"])
    first, second = (load_backbone(settings(place), classes=classes) for classes in (2, 3))
    assert first.fresh == ("classifier.bias", "classifier.weight")  # the pooler is there
    assert second.model.get_parameter("classifier.weight").shape == (3, 24)
    assert first.fingerprint == second.fingerprint
    model = network("bert", vocab_size=6)
    model.save_pretrained(place)  # with a head of two classes
    assert load_backbone(settings(place), classes=2).fresh == ()
    assert load_backbone(settings(place), classes=3).fresh == ("classifier.bias", "classifier.weight")


def test_other_missing_weights_are_an_error(tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "base", ["a", "b"])
    shallow = network("bert", vocab_size=6, num_hidden_layers=3).base_model
    config = (place / "config.json").read_text(encoding="utf-8")
    shallow.save_pretrained(place)
    (place / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ModelError, match=r"lacks 16 weights, the first is bert\.encoder\.layer\.3"):
        load_backbone(settings(place))
