"""Where prefixes and prompts start from: zeros, or the backbone's own values of a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import mmpt
from mmpt.cli import CONF
from mmpt.config.compose import compose
from mmpt.errors import AdapterError, ConfigError
from mmpt.methods.options import SITES
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import read_adapter, save_adapter, start_from
from mmpt.models.parts import word_embeddings
from mmpt.training.identity import identify
from mmpt.training.settings import check
from tests.tiny import adapted, batch

TEXT = "decide whether the second sentence follows"
METHODS = ["prefix", "multimask", "apt", "smop", "mept", "prompt", "ptuning", "residual", "dept"]


def tables(method: str, **options: Any) -> dict[str, torch.Tensor]:
    """What the option sets: prefixes and prompts by parameter name."""
    found = adapted(method, options).method.named_parameters()
    return {name: value.detach() for name, value in found if name.split(".")[0] in ("prefix", "prompts")}


@pytest.mark.parametrize("method", METHODS)
def test_every_prefix_and_prompt_can_start_from_zeros_or_a_text(method: str) -> None:
    assert all(not value.any() for value in tables(method, init="zero").values())
    text = tables(method, init="text", init_text=TEXT)
    again = tables(method, init="text", init_text=TEXT)
    other = tables(method, init="text", init_text=TEXT.replace("decide", "say"))
    for name, value in text.items():
        assert torch.equal(value, again[name]) and not torch.equal(value, other[name])
        assert (value.abs().amax(dim=-1) > 0).all()


def test_a_prompt_starts_from_the_embeddings_of_a_text_cut_or_repeated() -> None:
    for text, tokens, seen in (("abcde", 7, "abcdeab"), ("abcde", 2, "ab")):
        model = adapted("prompt", {"init": "text", "init_text": text, "num_virtual_tokens": tokens})
        prompt = dict(model.method.named_parameters())["prompts.input"]
        assert torch.equal(prompt, word_embeddings(model.backbone)(model_ids(seen)))


def test_a_prefix_starts_from_the_keys_and_values_of_a_text() -> None:
    model = adapted(
        "prefix", {"sites": ["encoder", "cross"], "init": "text", "init_text": "abc", "num_virtual_tokens": 3}
    )
    ids = model_ids("abc").unsqueeze(0)
    prefixes = model.method(None).prefixes
    backbone: Any = mmpt.remove_adapter(model.backbone)
    states = backbone.encoder(input_ids=ids, output_hidden_states=True)
    first = backbone.encoder.block[0].layer[0]
    for site, module, read in (
        ("encoder", first.SelfAttention, first.layer_norm(states.hidden_states[0])),
        ("cross", backbone.decoder.block[0].layer[1].EncDecAttention, states.last_hidden_state),
    ):
        key, value = (layer(read).unflatten(-1, (3, -1)).transpose(1, 2) for layer in (module.k, module.v))
        assert torch.allclose(prefixes[site].key[:, 0], key, atol=1e-6)
        assert torch.allclose(prefixes[site].value[:, 0], value, atol=1e-6)


def model_ids(text: str) -> torch.Tensor:
    """What the tiny vocabulary makes of a text."""
    return torch.tensor([3 + ord(letter) % 93 for letter in text])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"init": "text"}, "method.init=text needs a text"),
        ({"init": "text", "init_text": " "}, "method.init=text needs a text"),
        ({"init": "zero", "init_text": TEXT}, "method.init_text has no effect with method.init=zero"),
        ({"init": "text", "init_text": "♥♥"}, "method.init_text='♥♥' has no piece"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(method: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adapted(method, options)
    assert word in str(caught.value)


def test_what_sets_the_prefix_itself_excludes_its_reparametrisation() -> None:
    with pytest.raises(ConfigError, match=r"method\.init=zero sets the prefix itself"):
        adapted("prefix", {"init": "zero", "reparametrization": "mlp"})


@pytest.mark.parametrize("method", ["prefix", "multimask"])
def test_a_gate_over_a_prefix_of_zeros_is_refused(method: str) -> None:
    with pytest.raises(ConfigError, match=r"method\.gate=true with method\.init=zero would never train"):
        adapted(method, {"init": "zero", "gate": True})


@pytest.mark.parametrize("method", ["prefix", "multimask"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_gated_prefix_starts_as_the_backbone_itself_and_trains(method: str, attention: str) -> None:
    model = adapted(method, {"sites": list(SITES), "gate": True}, attention=attention).eval()
    with torch.no_grad():
        plain = adapted("full", attention=attention).eval().logits(*batch())  # untrained: the backbone itself
        zeros = adapted(method, {"sites": list(SITES), "init": "zero"}, attention=attention).eval().logits(*batch())
        assert torch.equal(model.logits(*batch()), plain)
    assert not torch.allclose(zeros, plain, atol=1e-3), "a prefix of zeros takes its part of the attention"
    optimizer = torch.optim.SGD(model.method.parameters(), lr=0.1)
    first, second = (_step(model, optimizer) for _ in range(2))
    assert first["gates"] and not first["prefix"] and second["gates"] and second["prefix"]


def _step(model: AdaptedModel, optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """Whether each group has a gradient in a step of training."""
    optimizer.zero_grad()
    model(*batch()).loss.backward()
    optimizer.step()
    groups = model.method.parameter_groups().items()
    return {name: all(p.grad is not None and bool(p.grad.any()) for p in found) for name, found in groups}


SAME = {"backbone": {"fingerprint": "tiny"}}  # of tests.tiny.backbone
STARTS: list[tuple[str, dict[str, Any], str, dict[str, Any], set[str]]] = [
    ("prefix", {}, "multimask", {}, {"prefix.decoder", "prefix.cross"}),
    ("prefix", {"mask": "single"}, "apt", {"sites": ["cross"]}, {"prefix.cross"}),
    ("prefix", {"gate": True}, "prefix", {"mask": "single"}, {"prefix.decoder", "prefix.cross"}),
    ("multimask", {"sites": ["cross"]}, "multimask", {}, {"prefix.cross", "masks.cross", "router.weight"}),
    ("smop", {}, "smop", {}, {"prompts.input", "router.weight"}),
    ("smop", {}, "multimask", {}, {"router.weight"}),
    ("residual", {}, "dept", {"num_virtual_tokens": 10}, {"prompts.input"}),
    ("prompt", {}, "ptuning", {"reparametrization": "none"}, {"prompts.input"}),
    ("mept", {}, "mept", {}, {"prompts.experts", "shared.expert", "router.0.weight", "router.1.weight"}),
]  # fmt: skip


def trained(directory: Path, method: str, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A saved adapter that no seed gives."""
    model = adapted(method, options)
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.normal_()
    save_adapter(directory, model.method, SAME)
    return read_adapter(directory).state


@pytest.mark.parametrize(("source", "options", "method", "more", "common"), STARTS)
def test_a_method_starts_from_what_an_adapter_has_of_it(
    source: str, options: dict[str, Any], method: str, more: dict[str, Any], common: set[str], tmp_path: Path
) -> None:
    state = trained(tmp_path, source, options)
    found = dict(adapted(method, {**more, "init": "adapter", "init_adapter": str(tmp_path)}).method.named_parameters())
    plain = dict(adapted(method, {**more, "init": "random"}).method.named_parameters())
    for name, value in found.items():
        assert torch.equal(value, state[name] if name in common else plain[name]), name
    assert common <= found.keys()


@pytest.mark.parametrize(
    ("source", "options", "method", "more", "word"),
    [
        ("prefix", {"num_virtual_tokens": 4}, "multimask", {}, r"has shape \(4, 144\), this method \(10, 144\)"),
        ("prefix", {}, "prefix", {"layers": "last_1"}, "give both the same tokens, layers and routes"),
        ("prefix", {}, "prompt", {}, "has nothing that this method can start from: prompts.input"),
        ("prompt", {"num_virtual_tokens": 20}, "smop", {}, "has nothing that this method can start from"),
        ("prefix", {"sites": ["decoder"]}, "prefix", {"sites": ["decoder"], "layout": "paper"}, "has nothing that"),
        ("lora", {}, "prefix", {}, "has nothing that"),
    ],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused(
    source: str, options: dict[str, Any], method: str, more: dict[str, Any], word: str, tmp_path: Path
) -> None:
    trained(tmp_path, source, options)
    model = adapted(method, {**more, "init": "random"})
    before = [parameter.detach().clone() for parameter in model.method.parameters()]
    with pytest.raises(AdapterError, match=word):
        start_from(model.method, str(tmp_path), "tiny")
    assert all(torch.equal(old, new) for old, new in zip(before, model.method.parameters(), strict=True))
    with pytest.raises(AdapterError, match="other backbone weights"):
        start_from(model.method, str(tmp_path), "another")


def test_an_adapter_to_start_from_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"set method\.init_adapter=RUN_DIR"):
        adapted("prefix", {"init": "adapter"})
    with pytest.raises(ConfigError, match=r"method\.init_adapter has no effect"):
        adapted("prompt", {"init_adapter": "x"})
    with pytest.raises(ConfigError, match=r"set method\.reparametrization=none"):
        adapted("residual", {"init": "adapter", "init_adapter": "x"})
    with pytest.raises(AdapterError, match="holds no finished adapter"):
        adapted("prefix", {"init": "adapter", "init_adapter": "nowhere"})


def test_a_run_is_known_by_the_content_of_the_adapter_it_starts_from(tmp_path: Path) -> None:
    def fingerprint(place: Path) -> str:
        words = ["method=prefix", "method.init=adapter", f"method.init_adapter='{place}'", "data.limit_train=8"]
        return identify(check(compose([f"++{word}" if "." in word else word for word in words], CONF))).fingerprint

    first, moved, other = (tmp_path / name for name in ("first", "moved", "other"))
    trained(first, "prefix", {})
    trained(moved, "prefix", {})
    trained(other, "prefix", {"num_virtual_tokens": 3})
    assert fingerprint(first) == fingerprint(moved) != fingerprint(other)
