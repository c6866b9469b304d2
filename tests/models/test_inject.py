"""Injection: a prefix is extra keys and values, in every attention implementation and architecture that we name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForSeq2SeqLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mmpt.attention.function import carry
from mmpt.attention.inject import Injection, running_attention, switch_attention
from mmpt.attention.prefix import KeyValue, LayerPrefix
from mmpt.errors import ModelError
from mmpt.methods import parse
from mmpt.methods.options import SITES
from mmpt.models.kinds.text import TextModel
from tests import tiny_encoders
from tests.methods.test_all import CASES, case
from tests.tiny import adapted, backbone, batch
from tests.tolerance import assert_close, assert_gradients_close, terms_of


@pytest.mark.parametrize("site", SITES)
def test_a_prefix_equals_attention_over_longer_keys(site: str) -> None:
    """One attention module by hand: softmax(q·[P_K; K] + [0; bias])·[P_V; V]."""
    built = backbone()
    injection = Injection(built.model)
    module, shape = injection.modules[site][0], injection.shapes[site]
    torch.manual_seed(3)
    prefix = KeyValue(*(torch.randn(2, shape.layers, shape.heads, 4, shape.head_dim) for _ in range(2)))
    hidden, states = torch.randn(2, 5, 24), torch.randn(2, 6, 24)
    given = {"key_value_states": states} if site == "cross" else {}
    mask = torch.ones(2, 1, 5, 6 if site == "cross" else 5, dtype=torch.bool)
    if site == "decoder":
        mask = mask.tril()
    injection.set({site: prefix})
    with torch.no_grad():
        found, bias, _ = module(hidden, mask=mask, **given)

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (shape.heads, -1)).transpose(1, 2)

        source = states if site == "cross" else hidden
        key = torch.cat([prefix.key[:, 0], heads(module.k(source))], dim=2)
        value = torch.cat([prefix.value[:, 0], heads(module.v(source))], dim=2)
        own = (bias + torch.zeros(mask.shape)).masked_fill(~mask, float("-inf"))
        scores = heads(module.q(hidden)) @ key.transpose(2, 3) + torch.nn.functional.pad(own, (4, 0))
        expected = module.o((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
    assert_close(found, expected, terms_of(module))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("heads", [2, 4])
def test_few_keys_in_bfloat16_are_the_same_attention_without_a_copy_of_the_prefix(
    heads: int, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and gradients are those of float32, rounded once; ``heads`` of keys serve 4 of queries."""
    torch.manual_seed(0)
    shapes = {"query": (6, 4, 3, 8), "key": (6, heads, 3, 8), "value": (6, heads, 3, 8)}
    gates = {"key_gate": (6, 1, 4), "value_gate": (6, 1, 4)}
    given = {name: torch.randn(shape) for name, shape in shapes.items()}
    trained = {"key": torch.randn(1, heads, 4, 8), "value": torch.randn(1, heads, 4, 8)}
    trained |= {name: torch.rand(shape) for name, shape in gates.items()}
    trained = {name: value.bfloat16().float() for name, value in trained.items()}
    real = torch.tensor([[True, True, False, True]]) if padded else None
    mask, bias = torch.ones(6, 1, 3, 3, dtype=torch.bool).tril(), torch.randn(1, 4, 3, 3).bfloat16()
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        leaves = {name: value.clone().requires_grad_() for name, value in trained.items()}
        module = torch.nn.Linear(1, 1)
        module.is_causal, module.num_key_value_groups = False, 4 // heads  # type: ignore[assignment]
        if dtype == torch.bfloat16:
            monkeypatch.setattr(LayerPrefix, "rows", lambda *_: pytest.fail("the prefix is copied"))
        carry([module], [LayerPrefix(**leaves, real=real)])  # type: ignore[arg-type]
        inputs = {name: value.bfloat16().to(dtype) for name, value in given.items()}
        output, _ = ALL_ATTENTION_FUNCTIONS["mmpt_sdpa"](
            module, *inputs.values(), mask, scaling=0.5, position_bias=bias.to(dtype)
        )
        assert output.dtype == dtype
        output.float().sin().sum().backward()
        found[dtype] = {"output": output.detach(), **{name: value.grad for name, value in leaves.items()}}
    wanted = found[torch.float32]
    assert_close(found[torch.bfloat16].pop("output"), wanted.pop("output").bfloat16(), terms=1)
    rounded = [{name: value.bfloat16() for name, value in part.items()} for part in (found[torch.bfloat16], wanted)]
    assert_gradients_close(*rounded, terms=1)  # type: ignore[misc]


def test_without_a_prefix_the_backbone_is_untouched() -> None:
    ids, mask, labels = batch()
    built = backbone()
    plain = AutoModelForSeq2SeqLM.from_config(built.model.config, attn_implementation="sdpa").eval()
    plain.load_state_dict(built.model.state_dict())
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels.clamp(min=0)}
    with torch.no_grad():
        assert_close(built.model(**given).logits, plain(**given).logits, terms_of(plain))


def test_a_prefix_does_not_outlive_its_block() -> None:
    model = adapted("prefix", {"sites": ["cross"]})
    hooks, (ids, mask, labels) = model.hooks, batch()
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels.clamp(min=0)}
    with torch.no_grad(), hooks.using(None):
        before = model.backbone(**given).logits
        with pytest.raises(RuntimeError), hooks.given(model.method(None)):
            assert not torch.allclose(model.backbone(**given).logits, before, atol=1e-3)
            raise RuntimeError
        assert torch.equal(model.backbone(**given).logits, before)


def test_a_prefix_of_other_batch_size_is_refused() -> None:
    built = backbone()
    injection = Injection(built.model)
    shape = injection.shapes["decoder"]
    prefix = KeyValue(*(torch.randn(3, shape.layers, shape.heads, 2, shape.head_dim) for _ in range(2)))
    ids, mask, labels = batch()
    injection.set({"decoder": prefix})
    with pytest.raises(ValueError, match="3 examples"):
        built.model(input_ids=ids, attention_mask=mask, labels=labels.clamp(min=0))


@pytest.mark.parametrize("name", list(CASES))
def test_a_static_cache_generates_the_same(name: str) -> None:
    model = case(name).eval()
    encoded = model.encode(*batch()[:2])
    wanted = model.generate(encoded, max_new_tokens=6, do_sample=False)
    found = model.generate(encoded, max_new_tokens=6, do_sample=False, cache_implementation="static")
    assert torch.equal(found, wanted)


def test_caches_that_cannot_be_had_are_refused() -> None:
    model = adapted("prefix", {"layout": "paper", "sites": ["decoder"]}).eval()
    encoded = model.encode(*batch()[:2])
    with pytest.raises(ValueError, match="layout=paper needs the dynamic cache"):
        model.generate(encoded, max_new_tokens=2, cache_implementation="static")
    with pytest.raises(ValueError, match="choose dynamic or static"):
        model.generate(encoded, max_new_tokens=2, cache_implementation="quantized")
    plain = adapted("prefix").eval()
    with pytest.raises(ValueError, match="max_new_tokens"):
        plain.generate(plain.encode(*batch()[:2]), cache_implementation="static")


def test_other_architectures_are_refused_by_name() -> None:
    config = AutoConfig.for_model("longt5", d_model=16, d_kv=4, num_heads=2, d_ff=16, num_layers=1, vocab_size=20)
    with pytest.raises(ModelError, match=r"longt5.*t5, mt5, umt5"):
        Injection(AutoModelForSeq2SeqLM.from_config(config))


def test_other_attention_is_refused() -> None:
    config = AutoConfig.for_model("t5", d_model=16, d_kv=4, num_heads=2, d_ff=16, num_layers=1, vocab_size=20)
    with pytest.raises(ModelError, match="mmpt_sdpa"):
        Injection(AutoModelForSeq2SeqLM.from_config(config, attn_implementation="sdpa"))


@pytest.mark.parametrize(
    ("implementation", "model_type", "name"),
    [
        ("sdpa", "t5", "mmpt_sdpa"),
        ("eager", "t5", "mmpt_eager"),
        ("flash_attention_2", "llama", "mmpt_sdpa"),  # flash attention knows neither masks nor biases of single scores
        ("flash_attention_3", "gpt2", "mmpt_sdpa"),
        ("sdpa", "gemma2", "mmpt_eager"),  # its scores are capped
    ],
)
def test_every_implementation_has_one_that_carries_prefixes(implementation: str, model_type: str, name: str) -> None:
    model = backbone(model_type).model
    model.config._attn_implementation = implementation
    assert switch_attention(model) == implementation and running_attention(model) == name
    assert name in AttentionInterface().valid_keys() and name in AttentionMaskInterface().valid_keys()


@pytest.mark.parametrize("dropout", [False, True])
def test_the_frozen_network_drops_out_only_where_asked(dropout: bool) -> None:
    from mmpt.models.engine import build_engine

    model = build_engine(backbone(dropout_rate=0.5), parse("prefix", {}), dropout=dropout).train()
    with torch.no_grad():
        first, second = (model.logits(*batch()) for _ in range(2))
        assert torch.equal(first, second) is not dropout
        model.eval()
        first, second = (model.logits(*batch()) for _ in range(2))
        assert torch.equal(first, second)


@pytest.mark.parametrize("model_type", ["t5", "bart", "llama", "bert"])
def test_no_pass_reads_a_value_from_the_device(model_type: str) -> None:
    """On ``meta``, where tensors have no values; a GPU would have to be waited for. The loss counts labels on a CPU."""
    model = (tiny_encoders.adapted if model_type == "bert" else adapted)("multimask", model_type=model_type).to("meta")
    ids, mask, labels = (part.to("meta") for part in batch())
    encoded = model.start({"input_ids": ids, "attention_mask": mask})
    assert encoded.states.is_meta
    if isinstance(model, TextModel):
        assert model.decode(encoded, labels).shape == (*labels.shape, model.backbone.config.vocab_size)
