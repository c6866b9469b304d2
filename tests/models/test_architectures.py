"""Every architecture at toy size: each site trains, rows don't mix, generation agrees with and without caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmpt.attention.architectures import ARCHITECTURES, REFUSED, architecture_of
from mmpt.errors import ConfigError, ModelError
from mmpt.methods import parse
from mmpt.models.activation_probe import ActivationProbe
from mmpt.models.adapted import AdaptedModel
from mmpt.models.engine import build_engine
from mmpt.models.gradient_checkpointing import checkpoint_layers
from tests.methods.test_all import opened
from tests.rows import assert_generation_agrees, assert_rows_are_independent, logits
from tests.tiny import SHAPES, Vocabulary, adapted, backbone, batch
from tests.tolerance import assert_close, assert_gradients_close, terms_of

SEQ2SEQ = ["bart", "pegasus"]
ALIKE = ("qwen2", "qwen3", "gemma", "gemma2")  # what is theirs alone, gemma3_text or llama have too, but for the cap


def marked(name: str, *more: str) -> Any:
    return pytest.param(name, *more, marks=[pytest.mark.slow] if name in ALIKE else [])


NAMES = [*SEQ2SEQ, *(name for name, row in ARCHITECTURES.items() if row.kind == "causal")]
MODELS = [marked(name) for name in NAMES]
CAUSAL = [marked(name) for name in NAMES if name not in SEQ2SEQ]
FEW = [pytest.param(name, marks=[] if name in ("bart", "gpt2", "llama") else [pytest.mark.slow]) for name in NAMES]
T5 = ["t5", "mt5", "umt5"]
SITES = [marked(name, site) for name in [*T5, *NAMES] for site in ARCHITECTURES[name].sites]
METHODS: dict[str, dict[str, Any]] = {
    "multimask": {"num_routes": 3, "num_virtual_tokens": 4},
    "prefix": {"init": "vocab", "num_virtual_tokens": 3, "gate": True},
    "smop": {"num_virtual_tokens": 2, "top_k": 4},
    "dept": {"num_virtual_tokens": 3, "r": 2, "max_length": 9},
    "apt": {"num_virtual_tokens": 3},
    "lora": {},
    "ia3": {},
}


def model_of(model_type: str, method: str = "multimask", **more: Any) -> Any:
    options = {**METHODS.get(method, {}), **more}
    if method in ("multimask", "prefix", "apt"):
        options.setdefault("sites", list(ARCHITECTURES[model_type].sites))
    return opened(adapted(method, options, model_type=model_type)).eval()


@pytest.mark.parametrize(("model_type", "site"), SITES)
def test_every_site_trains(model_type: str, site: str) -> None:
    model = model_of(model_type, "prefix", sites=[site], gate=False).train()
    model(*batch()).loss.backward()
    grad = model.method.prefix[site].grad
    assert (grad.abs().amax(dim=-1) > 0).all(), "a token is dead"
    assert (grad.unflatten(-1, (2 * model.injection.shapes[site].layers, -1)).abs().amax(dim=(0, 2)) > 0).all(), (
        "a slot is"
    )


def skip_refused(model_type: str, method: str) -> None:
    if method == "apt" and architecture_of(model_type).soft_capped:
        pytest.skip("apt is refused where attention scores are capped")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model_type", FEW)
def test_every_parameter_gets_gradient(model_type: str, method: str) -> None:
    skip_refused(model_type, method)
    model = model_of(model_type, method).train()
    with torch.no_grad():
        for name, parameter in model.method.named_parameters():
            if "lora_B" in name or name == "low_rank.B":  # they start at zero, so that A has no gradient at first
                parameter.normal_(std=0.1)
    model(*batch()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is name.startswith("method.") or any(
            parameter is p for p in model.method.parameters()
        )
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("method", ["multimask", "smop"])
@pytest.mark.parametrize("model_type", MODELS)
def test_an_example_does_not_depend_on_its_batch(model_type: str, method: str) -> None:
    assert_rows_are_independent(model_of(model_type, method))


def ranked(model: AdaptedModel, candidates: list[list[int]]) -> Tensor:
    ids, mask, _ = batch()
    return model.rank(model.encode(ids, mask), candidates)


@pytest.mark.parametrize("model_type", MODELS)
def test_ranking_is_the_likelihood_of_each_label(model_type: str) -> None:
    model = model_of(model_type)
    candidates = [[5, 1], [6, 7, 1]]
    found = ranked(model, candidates)
    ids, mask, _ = batch()
    for place, candidate in enumerate(candidates):
        labels = torch.tensor([candidate] * len(ids))
        log_probs = logits(model, ids, mask, labels).log_softmax(dim=-1)
        wanted = log_probs.gather(2, labels.unsqueeze(-1)).sum(dim=(1, 2))
        assert_close(found[:, place], wanted, terms_of(model.backbone))


@pytest.mark.parametrize("model_type", MODELS)
def test_generation_agrees_with_and_without_caches(model_type: str) -> None:
    assert_generation_agrees(model_of(model_type), static=True)


@pytest.mark.parametrize("model_type", CAUSAL)
def test_generation_takes_the_likeliest_token(model_type: str) -> None:
    """One token at a time by teacher forcing, each row alone: padding at the left changes nothing."""
    model = model_of(model_type, "multimask")
    ids, mask, _ = batch()
    found = model.generate(model.encode(ids, mask), max_new_tokens=4, do_sample=False)
    for row in range(len(ids)):
        length = int(mask[row].sum())
        told: list[int] = []
        while len(told) < found.shape[1] and 1 not in told:
            labels = torch.tensor([[*told, 0]])
            told.append(
                int(logits(model, ids[row : row + 1, :length], mask[row : row + 1, :length], labels)[0, -1].argmax())
            )
        assert found[row, : len(told)].tolist() == told


@pytest.mark.parametrize("model_type", CAUSAL)
def test_without_a_prefix_it_is_the_backbone(model_type: str) -> None:
    model = model_of(model_type, "lora")
    ids, mask, labels = batch()
    for row in range(len(ids)):
        length, target = int(mask[row].sum()), int((labels[row] != -100).sum())
        whole = torch.cat([ids[row, :length], labels[row, :target]]).unsqueeze(0)
        with torch.no_grad():
            wanted = model.backbone(input_ids=whole).logits[0, length - 1 : length - 1 + target]
        assert_close(logits(model, ids, mask, labels)[row, :target], wanted, terms_of(model.backbone))


@pytest.mark.parametrize("model_type", [*T5, *MODELS])
def test_attention_implementations_agree(model_type: str) -> None:
    if architecture_of(model_type).soft_capped:
        pytest.skip("it runs eager attention alone")
    found = [
        logits(opened(adapted("prefix", METHODS["prefix"], model_type=model_type, attention=name)).eval(), *batch())
        for name in ("sdpa", "eager")
    ]
    assert_close(*found, terms_of(model_of(model_type).backbone))


def gradients(model: Any) -> dict[str, Tensor]:
    model.zero_grad()
    model(*batch()).loss.backward()
    model.injection.set({})
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("model_type", ["t5", pytest.param("umt5", marks=pytest.mark.slow), *FEW])
@pytest.mark.parametrize("method", ["multimask", "apt", "lora"])
def test_checkpointing_gives_the_same_gradients(model_type: str, method: str) -> None:
    skip_refused(model_type, method)
    model = model_of(model_type, method).train()
    torch.manual_seed(3)
    wanted = gradients(model)
    checkpoint_layers(model.injection)
    torch.manual_seed(3)
    found = gradients(model)
    assert_gradients_close(found, wanted, terms_of(model, batch()[0].numel()))


def test_checkpointed_layers_run_again_with_the_prefix_of_their_pass() -> None:
    model = model_of("llama").train()
    wanted = gradients(model)
    checkpoint_layers(model.injection)
    model.zero_grad()
    torch.manual_seed(0)
    calls: list[int] = []
    model.injection.layers["self"][0].self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    torch.manual_seed(3)
    loss = model.eval()(*batch()).loss
    model.injection.set({})  # the next pass's prefix, or none
    loss.backward()
    assert len(calls) == 2
    assert all(parameter.grad is not None for parameter in model.method.parameters())
    assert wanted.keys() == {name for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("model_type", [*T5, *MODELS])
def test_half_precision_runs(model_type: str) -> None:
    built = backbone(model_type)
    built.model.to(torch.bfloat16)
    model: Any = build_engine(built, parse("multimask", {})).train()
    output = model(*batch())
    output.loss.backward()
    assert model.logits(*batch()).dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in model.method.parameters())


@pytest.mark.parametrize("model_type", MODELS)
def test_initialisation_takes_the_keys_and_values_of_a_text(model_type: str) -> None:
    """At the first layer they are projections of the text's own embeddings, so a text of one letter gives one key."""
    options = {"init": "text", "init_text": "aaa", "num_virtual_tokens": 3}
    model = adapted("prefix", options, model_type=model_type)
    other = adapted("prefix", {**options, "init_text": "bbb"}, model_type=model_type)
    for site, table in model.method.prefix.items():
        assert torch.isfinite(table).all() and not torch.allclose(table, other.method.prefix[site])


@pytest.mark.parametrize("model_type", MODELS)
def test_a_prompt_of_a_text_is_that_text_before_the_source(model_type: str) -> None:
    """Scales of embeddings and positions are those of tokens: a prompt from a text changes nothing against its ids."""
    model = model_of(model_type, "prompt", init="text", init_text="abc", num_virtual_tokens=3)
    ids, mask, labels = batch()
    text = torch.tensor(Vocabulary()("abc", add_special_tokens=False)["input_ids"]).expand(len(ids), -1)
    plain = model_of(model_type, "lora")  # it starts as the backbone itself
    wanted = logits(plain, torch.cat([text, ids], dim=1), torch.nn.functional.pad(mask, (3, 0), value=1), labels)
    assert_close(logits(model, ids, mask, labels), wanted, terms_of(model.backbone))


@pytest.mark.parametrize("model_type", [*T5, *SEQ2SEQ])
def test_cross_attention_starts_from_keys_of_the_encoders_output(model_type: str) -> None:
    model: Any = adapted("prefix", {"sites": ["cross"]}, model_type=model_type).eval()
    ids = torch.tensor([5, 9, 17])
    key, value = ActivationProbe(model.hooks, Vocabulary()).keys_values(ids)["cross"]  # type: ignore[arg-type]
    architecture, module = model.injection.architecture, model.injection.modules["cross"][-1]
    with torch.no_grad():
        states = model.backbone.get_encoder()(input_ids=ids.unsqueeze(0)).last_hidden_state[0]
        for found, name in ((key[-1], architecture.key), (value[-1], architecture.value)):
            wanted = module.get_submodule(name)(states).unflatten(-1, (3, 8)).transpose(0, 1)
            assert_close(found, wanted, terms_of(model.backbone))


def test_prefixes_have_the_heads_of_keys() -> None:
    shapes = {name: model_of(name).injection.shapes["self"] for name in ("gpt2", "llama", "qwen2", "gemma3_text")}
    assert {name: (shape.heads, shape.head_dim) for name, shape in shapes.items()} == {
        "gpt2": (3, 8),
        "llama": (2, 8),
        "qwen2": (2, 8),
        "gemma3_text": (2, 8),
    }


def test_a_prefix_is_seen_from_every_query_of_a_sliding_layer() -> None:
    """With a window of 4 in a source of 9 tokens, the last query still attends to the prefix in every layer."""
    for model_type in ("qwen3", "gemma3_text"):
        for layer in range(3):
            model = model_of(model_type, "prefix", gate=False)
            ids, mask, labels = batch()
            before = logits(model, ids[:1], mask[:1], labels[:1])
            with torch.no_grad():
                table = model.method.layouts["self"].slots(model.method.prefix["self"])
                table[:, 2 * layer + 1] += 1.0  # values of one layer
            assert (logits(model, ids[:1], mask[:1], labels[:1]) - before).abs().amax(dim=-1).min() > 1e-4


def test_what_cannot_be_injected_is_refused_with_the_reason() -> None:
    for name, reason in REFUSED.items():
        with pytest.raises(ModelError, match=rf"'{name}' models cannot carry prefixes: {reason[:20]}"):
            architecture_of(name)
    with pytest.raises(ModelError, match="it is not among the tested ones"):
        architecture_of("longt5")


@pytest.mark.parametrize(("model_type", "site"), [("bart", "self"), ("gpt2", "cross"), ("llama", "encoder")])
def test_sites_that_a_model_has_not_are_refused(model_type: str, site: str) -> None:
    with pytest.raises(ConfigError, match=rf"{model_type} models have no {site} attention; their sites are"):
        adapted("prefix", {"sites": [site]}, model_type=model_type)


def test_the_published_layout_is_for_t5() -> None:
    with pytest.raises(ConfigError, match="how the published code prefixes T5"):
        adapted("prefix", {"layout": "paper", "sites": ["decoder"]}, model_type="bart")


@pytest.mark.parametrize("model_type", ["bart", "pegasus", "gpt2", "opt"])
def test_sequences_longer_than_the_positions_are_refused(model_type: str) -> None:
    model = model_of(model_type, "prompt", num_virtual_tokens=60)
    with pytest.raises(ConfigError, match=r"exceed the 64 positions of this .* lower data\.max_length"):
        model.logits(*batch())


@pytest.mark.parametrize("model_type", SEQ2SEQ)
def test_prompts_in_every_layer_of_the_encoder(model_type: str) -> None:
    model = model_of(model_type, "mept", num_virtual_tokens=2).train()
    model(*batch()).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.method.parameters())


@pytest.mark.parametrize(("method", "options"), [("mept", {}), ("multimask", {"router_input": "encoder"})])
def test_what_needs_an_encoder_is_refused_without_one(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="no encoder"):
        adapted(method, options, model_type="gpt2")


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["t5", "bart", "gpt2", "llama", "gemma3_text"])
def test_the_forward_pass_compiles(model_type: str) -> None:
    model = model_of(model_type).train()
    model.method.eval()  # no noise
    wanted = gradients(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    model.zero_grad()
    compiled(*batch()).loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert_gradients_close(found, wanted, terms_of(model, batch()[0].numel()))


def test_every_row_has_a_tiny_shape() -> None:
    assert {name for name, row in ARCHITECTURES.items() if row.kind == "causal"} <= set(SHAPES)
