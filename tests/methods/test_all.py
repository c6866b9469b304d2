"""What holds for every method, at every site: a matrix over tiny random backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import mmpt
from mmpt.errors import ConfigError, ModelError
from mmpt.methods import method_class, names, options_class
from mmpt.methods.options import SITES
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import load_state
from mmpt.models.parts import word_embeddings
from tests.rows import TERMS, WIDTH, assert_generation_agrees, assert_rows_are_independent, logits
from tests.tiny import adapted, batch
from tests.tolerance import assert_close

ALL = list(SITES)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"prefix-{site}": ("prefix", {"sites": [site]}) for site in SITES},
    **{f"multimask-{site}": ("multimask", {"sites": [site]}) for site in SITES},
    "prefix-all-mask": ("prefix", {"sites": ALL, "mask": "single"}),
    "prefix-mlp": ("prefix", {"sites": ALL, "reparametrization": "mlp", "reparametrization_hidden": 16}),
    "prefix-vocab": ("prefix", {"sites": ALL, "init": "vocab"}),
    "prefix-gate": ("prefix", {"sites": ALL, "gate": True, "mask": "single"}),
    "prefix-last": ("prefix", {"sites": ALL, "layers": "last_1", "init": "vocab", "mask": "single"}),
    "multimask-last": ("multimask", {"sites": ALL, "layers": "last_1", "num_routes": 3}),
    "multimask-all": ("multimask", {"sites": ALL, "num_routes": 3}),
    "multimask-gate": ("multimask", {"sites": ALL, "num_routes": 3, "layers": "last_1", "gate": True}),
    "multimask-one-route": ("multimask", {"num_routes": 1}),
    "multimask-head": ("multimask", {"sites": ALL, "num_routes": 3, "mask_granularity": "head"}),
    "multimask-key-value": ("multimask", {"sites": ALL, "num_routes": 3, "mask_granularity": "key_value"}),
    "multimask-reads-encoder": ("multimask", {"num_routes": 3, "router_input": "encoder", "mask_temperature": 0.5}),
    "multimask-training": ("multimask", {"prefix_dropout": 0.1, "load_balance": 0.1}),
    "multimask-below": ("multimask", {"sites": ALL, "layers": "last_1", "router_input": "layer_below"}),
    "multimask-straight": ("multimask", {"routing": "straight_through", "mask_init": "apart", "num_routes": 3}),
    "multimask-text": ("multimask", {"sites": ALL, "init": "text", "init_text": "abc", "router_temperature": 0.5}),
    "prefix-head": ("prefix", {"sites": ALL, "mask": "single", "mask_granularity": "head"}),
    "multimask-add": ("multimask", {"share_type": "add", "num_virtual_tokens": 3, "num_route_tokens": 3, "top_k": 4}),
    "multimask-prepend": ("multimask", {"share_type": "prepend", "top_k": 4}),
    "multimask-prepend-single": ("multimask", {"share_type": "prepend", "mask": "single", "top_k": 4}),
    "multimask-prepend-nomask": ("multimask", {"share_type": "prepend", "mask": "none", "top_k": 4}),
    "multimask-none": ("multimask", {"share_type": "none", "top_k": 4, "init": "vocab"}),
    "multimask-none-single": ("multimask", {"share_type": "none", "mask": "single", "top_k": 4}),
    "smop": ("smop", {"top_k": 4}),
    "apt": ("apt", {"sites": ALL}),
    "apt-last": ("apt", {"layers": "last_1", "init": "vocab"}),
    "prefix-plus": ("prefix_plus", {"sites": ALL}),
    "prefix-plus-last": ("prefix_plus", {"layers": "last_1"}),
    "mept": ("mept", {"top_k": 4, "num_virtual_tokens": 3, "init_std": 1.0}),
    "mept-plain": ("mept", {"num_routes": 1, "shared_expert": False, "init": "vocab"}),
    "smop-one-route": ("smop", {"num_routes": 1}),
    "prompt": ("prompt", {}),
    "ptuning-lstm": ("ptuning", {"reparametrization_hidden": 8}),
    "ptuning-mlp": ("ptuning", {"reparametrization": "mlp", "init": "vocab"}),
    "residual": ("residual", {"reparametrization_hidden": 8}),
    "residual-plain": ("residual", {"reparametrization_hidden": 8, "layer_norm": False, "init": "random"}),
    "dept": ("dept", {"num_virtual_tokens": 3, "r": 2, "max_length": 9}),
    "lora": ("lora", {}),
    "ia3": ("ia3", {}),
    "full": ("full", {}),
}
NETWORKS = ("prefix-mlp", "ptuning-lstm", "ptuning-mlp", "residual", "residual-plain")  # units of theirs may rest
ROUTED = (
    "smop",
    "mept",
    "multimask-all",
    "multimask-add",
    "multimask-prepend",
    "multimask-prepend-single",
    "multimask-head",
    "multimask-reads-encoder",
    "multimask-below",
    "multimask-straight",
)


def case(name: str, **more: Any) -> AdaptedModel:
    method, options = CASES[name]
    return opened(adapted(method, {**options, **more}))


def opened(model: AdaptedModel) -> AdaptedModel:
    """Open a model's gates, which start at zero, or alike for all inputs."""
    with torch.no_grad():
        for key, parameter in model.method.named_parameters():
            if key.startswith("token_gates."):
                parameter.copy_(torch.linspace(-1.0, 1.0, parameter.numel()).view_as(parameter).sin())
            if key.startswith("memory."):
                parameter.copy_(torch.linspace(0.0, 9.0, parameter.numel()).view_as(parameter).cos())
            if key.startswith("gates."):
                parameter.copy_(torch.linspace(0.5, 1.0, len(parameter)))
    return model


def test_every_method_has_options_class_module_and_yaml() -> None:
    root = Path(__file__).parents[2]
    assert set(names()) == {path.stem for path in (root / "conf" / "method").glob("*.yaml")}
    assert {method for method, _ in CASES.values()} == set(names())
    assert all(options_class(name).name == name and method_class(name) for name in names())


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_is_in_a_group_and_gets_gradient(name: str) -> None:
    model = case(name).train()
    groups = model.method.parameter_groups()
    grouped = [parameter for found in groups.values() for parameter in found]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(groups.values()), groups.keys()
    assert {id(p) for p in grouped} == {id(p) for p in trainable}
    assert set(groups) == set(model.method.options.groups())
    if name in ("lora", "dept"):  # B starts at zero, so A has no gradient in the very first step
        with torch.no_grad():
            for key, parameter in model.method.named_parameters():
                if "lora_B" in key or key == "low_rank.B":
                    parameter.normal_(std=0.1)
    model(*batch()).loss.backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, key
            if name not in ("full", "lora", *NETWORKS):  # no row, layer or slot of ours is dead
                flat = parameter.grad.flatten(end_dim=-2) if parameter.dim() > 1 else parameter.grad.unsqueeze(0)
                assert (flat.abs().amax(dim=-1) > 0).all(), key
                assert (flat.abs().amax(dim=0) > 0).all(), key


@pytest.mark.parametrize("name", CASES)
def test_no_pass_makes_a_tensor_of_python_numbers(name: str) -> None:
    """On a GPU each is a copy that is waited for, and that a CUDA graph cannot hold; indexing with a list makes one."""
    method = case(name).train().method
    means = torch.randn(5, WIDTH) if method.reads_input else None
    method(means)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        method(means)
    assert "aten::lift_fresh" not in {event.key for event in profiled.key_averages()}


@pytest.mark.parametrize("name", CASES)
def test_only_declared_parameters_move(name: str) -> None:
    model = case(name).train()
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    declared = {id(parameter) for found in model.method.parameter_groups().values() for parameter in found}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(*batch()).loss.backward()
    optimizer.step()
    for key, parameter in model.named_parameters():
        if id(parameter) not in declared:
            assert torch.equal(parameter, before[key]), key


@pytest.mark.parametrize("name", CASES)
def test_an_example_does_not_depend_on_its_batch(name: str) -> None:
    assert_rows_are_independent(case(name).eval())


@pytest.mark.parametrize("name", CASES)
def test_generation_with_cache_equals_generation_without(name: str) -> None:
    assert_generation_agrees(case(name).eval())


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0] != "full"])
def test_the_method_changes_the_logits(name: str) -> None:
    model = case(name).eval()
    changed = logits(model, *batch())
    if name in ("lora", "ia3"):  # they start as the backbone itself
        with torch.no_grad():
            next(p for key, p in model.method.named_parameters() if "lora_A" not in key).normal_()
        assert not torch.allclose(logits(model, *batch()), changed, atol=1e-4)
        return
    ids, mask, labels = batch()
    with torch.no_grad(), mmpt.disable_adapter(model.backbone):
        plain = model.backbone(input_ids=ids, attention_mask=mask, labels=labels.clamp(min=0)).logits
    assert not torch.allclose(plain[0], changed[0], atol=1e-3)


@pytest.mark.parametrize("name", ROUTED)
def test_routes_differ_between_examples_and_noise_is_for_training_only(name: str) -> None:
    model = case(name).eval()
    ids, mask, labels = batch()
    with torch.no_grad():
        first, second = (model(ids, mask, labels).route_probs for _ in range(2))
    assert first is not None and second is not None
    assert torch.equal(first, second)
    assert_close(first.sum(dim=-1), torch.ones(len(ids)), WIDTH)
    assert (first[0] - first[1]).abs().max() > 1e-4
    model.train()
    with torch.no_grad():
        noisy = model(ids, mask, labels).route_probs
    assert noisy is not None and not torch.allclose(noisy, first, atol=1e-3)


@pytest.mark.parametrize("name", ["multimask-cross", "multimask-prepend-single", "prefix-all-mask", "smop"])
def test_initialisation_follows_the_seed(name: str) -> None:
    first, second = (dict(case(name).method.named_parameters()) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("method", "options", "word"),
    [
        ("multimask", {"num_virtual_tokens": 0}, "num_virtual_tokens=0"),
        ("prefix", {"num_virtual_tokens": 0}, "num_virtual_tokens=0"),
        ("smop", {"num_virtual_tokens": -1}, "num_virtual_tokens=-1"),
        ("multimask", {"num_routes": 0}, "num_routes=0"),
        ("multimask", {"top_k": 5}, "top_k=5"),
        ("multimask", {"mask": "single"}, "leaves the routes without effect"),
        ("multimask", {"share_type": "add"}, "num_route_tokens=1"),
        ("prefix", {"layout": "paper"}, "method.sites=[decoder]"),
        ("prefix", {"layout": "paper", "sites": ["decoder"], "gate": True}, "set method.gate=false"),
        ("prefix", {"sites": []}, "names no site"),
        ("prefix", {"layers": "last_0"}, "method.layers=last_0 is not allowed"),
        ("multimask", {"layers": "first_1"}, "method.layers=first_1 is not allowed"),
        ("multimask", {"layout": "paper", "sites": ["decoder"], "layers": "last_1"}, "set method.layers=all"),
        ("prefix", {"sites": ["cross", "cross"]}, "twice"),
        ("prefix", {"tokens": 3}, "tokens"),
        ("multimask", {"mask_temperature": 0.0}, "mask_temperature=0.0 must be positive"),
        ("multimask", {"prefix_dropout": 1.0}, "prefix_dropout=1.0 must lie"),
        ("multimask", {"load_balance": -1.0}, "load_balance=-1.0"),
        ("multimask", {"num_routes": 1, "load_balance": 0.1}, "load_balance=0.1 has no effect without routes"),
        ("multimask", {"router_input": "encoder", "sites": ["encoder"]}, "leave encoder out of method.sites"),
        (
            "multimask",
            {"layout": "paper", "sites": ["decoder"], "mask_granularity": "head"},
            "set method.mask_granularity=layer or",
        ),
        ("prefix", {"mask_granularity": "head"}, "no effect with method.mask=none"),
        ("multimask", {"router_temperature": 0.0}, "router_temperature=0.0 must be positive"),
        ("multimask", {"mask_init": "apart", "share_type": "none", "mask": "single"}, "set method.mask=per_route"),
        ("multimask", {"routing": "straight_through", "top_k": 2}, "set method.top_k=1, not 2"),
        (
            "multimask",
            {"num_routes": 1, "routing": "straight_through"},
            "has no effect without routes; set method.routi",
        ),
        ("multimask", {"router_input": "layer_below", "sites": ["encoder"]}, "set method.layers=last_N"),
        ("multimask", {"router_input": "layer_below", "sites": ["encoder"], "layers": "last_2"}, "give fewer layers"),
        ("prefix_plus", {"sites": []}, "names no site"),
        ("ptuning", {"reparametrization_hidden": 7}, "reparametrization_hidden=7 must be even"),
        ("ia3", {"target_modules": ["k"], "feedforward_modules": ["wo"]}, "feedforward_modules has wo"),
        ("multimusk", {}, 'did you mean "multimask"'),
    ],
)
def test_impossible_options_are_refused_by_name(method: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adapted(method, options)
    assert word in str(caught.value)


@pytest.mark.parametrize(("method", "more"), [("lora", {}), ("ia3", {"feedforward_modules": []})])
def test_a_name_of_no_layer_is_refused(method: str, more: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"query names no layer of the backbone; .*k, lm_head, o, q, v, wi, wo"):
        adapted(method, {"target_modules": ["v", "query"], **more})


def test_a_longer_name_chooses_among_layers() -> None:
    method: Any = adapted("lora", {"target_modules": ["EncDecAttention.q"]}).method
    layers = {name.removeprefix("lora."): value for name, value in method.named_parameters()}
    assert len(layers) == 2 * 3 and all("EncDecAttention/q" in name for name in layers)


def test_ia3_rescales_as_published() -> None:
    """Vectors do what rescaled rows (keys, values) and columns (feed-forward) of the weights do."""
    model, merged = case("ia3").eval(), case("ia3").eval()
    vectors = {name.removeprefix("ia3."): value for name, value in model.method.named_parameters()}
    assert len(vectors) == 2 * 3 + 3 * 5  # k, v, wo in 2 layers of the encoder; k, v twice and wo in 3
    with torch.no_grad():
        for key, vector in vectors.items():
            vector.normal_(1.0, 0.5)
            layer: Any = merged.backbone.get_submodule(key.split("/ia3_")[0].replace("/", "."))
            layer.base_layer.weight.mul_(vector)
    assert_close(logits(model, *batch()), logits(merged, *batch()), TERMS)


@pytest.mark.parametrize("name", ["ptuning-lstm", "ptuning-mlp", "residual"])
def test_a_reparametrised_prompt_is_saved_as_a_prompt(name: str) -> None:
    model = case(name).eval()
    options, state = model.method.folded()
    assert options.reparametrization == "none" and options.groups() == ("prompts",)
    assert state.keys() == {"prompts.input"}
    plain = adapted("prompt", {"num_virtual_tokens": len(state["prompts.input"])}).eval()
    load_state(plain.method, state, "here")
    assert torch.equal(logits(plain, *batch()), logits(model, *batch()))


def test_a_residual_prompt_is_a_table_plus_its_network() -> None:
    method: Any = case("residual").method
    table, (first, _, second, norm) = method.prompts["input"], method.reparametrization.module
    hidden = torch.relu(table @ first.weight.T + first.bias) @ second.weight.T + second.bias
    centred = hidden - hidden.mean(dim=1, keepdim=True)
    wanted = table + centred / (hidden.var(dim=1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    assert_close(method.prompt(), wanted, WIDTH)


def test_dept_starts_as_prompt_tuning_and_updates_the_first_tokens() -> None:
    model = case("dept", max_length=6).eval()  # less than the longest source
    method: Any = model.method
    plain = adapted("prompt", {"num_virtual_tokens": 3}).eval()
    load_state(plain.method, {"prompts.input": method.prompts["input"].detach()}, "here")
    ids, mask, labels = batch()
    assert torch.equal(logits(model, ids, mask, labels), logits(plain, ids, mask, labels))
    with torch.no_grad():
        method.low_rank["B"].normal_()
        update = 8 / 2**0.5 * method.low_rank["A"] @ method.low_rank["B"]
        embeddings = word_embeddings(plain.backbone)(ids)
        embeddings[:, :6] += update
        inputs = torch.cat([method.prompts["input"].expand(len(ids), -1, -1), embeddings], dim=1)
        seen = torch.nn.functional.pad(mask, (3, 0), value=1)
        with mmpt.disable_adapter(plain.backbone):
            wanted = plain.backbone.get_encoder()(inputs_embeds=inputs, attention_mask=seen).last_hidden_state
        assert_close(model.encode(ids, mask).states, wanted, TERMS)
