"""``mmpt.adapt``: the model stays transformers' own, and does what the engine of runs does."""

from __future__ import annotations

import copy
import gc
import inspect
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2ForSequenceClassification, T5EncoderModel
from transformers.modeling_outputs import BaseModelOutput

import mmpt
from mmpt.errors import AdapterError, ConfigError, DataError, ModelError
from mmpt.methods import parse
from mmpt.models.adapters import adapters_of
from mmpt.models.engine import engine_of
from tests.library.plain import DEEP, FAMILIES, PROMPTS, batch, model, prompts
from tests.tolerance import assert_close, assert_gradients_close, terms_of

METHODS = [*DEEP, *PROMPTS, "lora", "ia3"]


def adapted(family: str, method: str = "multimask", attention: str = "sdpa", **options: Any) -> Any:
    """A model whose adapter has values that matter."""
    found = mmpt.adapt(model(family, attention), parse(method, options), seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapters_of(found).get("default").parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return found.eval()


def logits(found: Any, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        result: Tensor = found(**given).logits
    return result


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_it_trains_and_leaves_nothing_behind(family: str, method: str, attention: str) -> None:
    plain, given = model(family, attention), batch(family)
    plain.get_input_embeddings().weight.requires_grad_(False)
    before, keys = logits(plain, given), set(plain.state_dict())
    flags = {name: value.requires_grad for name, value in plain.named_parameters()}
    hooks = sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in plain.modules())
    found = mmpt.adapt(plain, parse(method, {}), seed=1)
    assert found is plain
    trained = {name: value for name, value in found.named_parameters() if value.requires_grad}
    start = {name: value.clone() for name, value in found.named_parameters()}
    optimizer = torch.optim.SGD(mmpt.parameter_groups(found, lr=0.5))
    found.train()
    for _ in range(2):  # LoRA's A moves once B is not zero
        loss = found(**given).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, value in found.named_parameters() if not torch.equal(value, start[name])}
    assert moved == set(trained), moved ^ set(trained)
    assert torch.isfinite(loss)
    found.eval()
    changed = logits(found, given)
    assert changed.shape == before.shape and not torch.allclose(changed, before, atol=1e-4)
    with mmpt.disable_adapter(found):
        assert_close(logits(found, given), before, terms_of(found))
    assert torch.equal(logits(found, given), changed)
    assert mmpt.remove_adapter(found) is plain
    assert torch.equal(logits(plain, given), before)
    assert set(plain.state_dict()) == keys
    assert flags == {name: value.requires_grad for name, value in plain.named_parameters()}
    left = sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in plain.modules())
    assert left == hooks and "generate" not in vars(plain)


@pytest.mark.parametrize("family", ["t5", "bart", "bert"])
@pytest.mark.parametrize("method", [*METHODS, "ptuning", "residual", "apt"])
def test_it_gives_what_the_engine_gives(family: str, method: str) -> None:
    found, given = adapted(family, method), batch(family)
    engine = engine_of(found)
    output = found(**given)
    if family == "bert":
        labels = given.pop("labels").unsqueeze(1)
        wanted = engine(**given, labels=labels).loss
    else:
        wanted = engine(**given).loss
        assert_close(output.logits, engine.logits(**given), terms_of(found))
    assert_close(output.loss, wanted, terms_of(found))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", METHODS)
def test_decoder_only_models_train_as_the_engine_ranks(family: str, method: str) -> None:
    """The answer's likelihood is the same: the router reads the prompt, wherever the answer begins."""
    found, given = adapted(family, method), batch(family)
    engine = engine_of(found)
    ids, mask, labels = given["input_ids"], given["attention_mask"], given["labels"]
    for row in range(len(ids)):
        source, answer = ids[row][(labels[row] == -100) & mask[row].bool()], labels[row][labels[row] >= 0]
        encoded = engine.encode(source.unsqueeze(0), torch.ones(1, len(source), dtype=torch.long))
        ranked = engine.rank(encoded, [answer.tolist()])
        one = {name: value[row : row + 1] for name, value in given.items()}
        assert_close(-found(**one).loss * len(answer), ranked[0, 0], terms_of(found))
    counts = (labels >= 0).sum(dim=1)
    with torch.no_grad():
        alone = [found(**{name: value[row : row + 1] for name, value in given.items()}).loss for row in range(4)]
        together = (torch.stack(alone) * counts).sum()
    assert_close(found(**given).loss, together / counts.sum(), terms_of(found))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("family", ["t5", "bart", "gpt2", "llama"])
@pytest.mark.parametrize("method", ["multimask", "smop", "dept", "lora"])
def test_generation_is_the_engines(family: str, method: str, options: dict[str, Any]) -> None:
    found, given = adapted(family, method), prompts(family)
    options = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5, **options}
    right = prompts("t5")
    engine = engine_of(found)
    torch.manual_seed(3)
    wanted = engine.generate(engine.encode(**right), **options)
    torch.manual_seed(3)
    ids = found.generate(**given, **options)
    if family in ("gpt2", "llama"):
        assert torch.equal(ids[:, : given["input_ids"].shape[1]], given["input_ids"])
        ids = ids[:, given["input_ids"].shape[1] :]
    assert torch.equal(ids, wanted)
    longest = {"max_length": given["input_ids"].shape[1] + 5} if family in ("gpt2", "llama") else {"max_length": 6}
    if "cache_implementation" not in options:
        del options["max_new_tokens"]
        torch.manual_seed(3)
        assert torch.equal(found.generate(**given, **options, **longest)[:, -5:], wanted[:, -5:])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["multimask", "smop"])
def test_a_loop_with_a_cache_is_generation(family: str, method: str) -> None:
    found, given = adapted(family, method), prompts(family)
    wanted = found.generate(**given, max_new_tokens=4, min_new_tokens=4, do_sample=False)[:, -4:]
    ids, mask, cache, tokens = given["input_ids"], given["attention_mask"], None, []
    for _ in range(4):
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = found(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        assert out.logits.shape[1] == ids.shape[1]
        allowed = out.logits[:, -1].clone()
        allowed[:, found.generation_config.eos_token_id] = float("-inf")
        ids, cache = allowed.argmax(dim=-1, keepdim=True), out.past_key_values
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        tokens.append(ids)
    assert torch.equal(torch.cat(tokens, dim=1), wanted)


@pytest.mark.parametrize("method", ["multimask", "smop"])
def test_caches_used_in_turn_keep_what_was_contributed_to_them(method: str) -> None:
    found, given = adapted("llama", method), prompts("llama")
    other = {name: value.flip(0) for name, value in given.items()}
    last = torch.full((len(given["input_ids"]), 1), 7)

    def after(between: bool) -> Tensor:
        cache = found(**given, use_cache=True).past_key_values
        kept = found(**other, use_cache=True).past_key_values if between else None
        mask = torch.cat([given["attention_mask"], torch.ones_like(last)], dim=1)
        positions = mask.sum(dim=1, keepdim=True) - 1
        result: Tensor = found(
            input_ids=last, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).logits
        del kept
        return result

    with torch.no_grad():
        wanted = after(False)
        assert_close(after(True), wanted, terms_of(found))


@pytest.mark.parametrize("method", [*PROMPTS, "mept", *DEEP])
def test_padding_on_the_left_changes_no_example(method: str) -> None:
    found, given = adapted("t5", method), batch("t5")
    ids, mask = given["input_ids"], given["attention_mask"]
    order = (torch.arange(ids.shape[1]) - (mask == 0).sum(dim=1, keepdim=True)) % ids.shape[1]
    left = {"input_ids": ids.gather(1, order), "attention_mask": mask.gather(1, order), "labels": given["labels"]}
    assert not torch.equal(left["attention_mask"], mask)
    assert_close(logits(found, left), logits(found, given), terms_of(found))


@pytest.mark.parametrize("method", ["multimask", "smop"])
def test_beams_over_given_encoder_outputs_are_those_of_its_source(method: str) -> None:
    found, given = adapted("t5", method), prompts("t5")
    other = {name: value.flip(0) for name, value in given.items()}
    options: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 4}
    wanted = found.generate(**given, **options)
    with torch.no_grad():
        states = found.get_encoder()(**given)
        found.get_encoder()(**other)  # another batch in between
    assert torch.equal(found.generate(**given, encoder_outputs=states, **options), wanted)


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("method", ["multimask", "smop", "mept"])
def test_encoder_outputs_keep_what_was_contributed_to_them(family: str, method: str) -> None:
    found, given = adapted(family, method), batch(family)
    other = {name: value.flip(0) for name, value in given.items()}
    wanted = logits(found, given)
    encoder = found.get_encoder()
    with torch.no_grad():
        states = encoder(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
        encoder(input_ids=other["input_ids"], attention_mask=other["attention_mask"])  # another batch in between
        again = found(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=given["attention_mask"],
            labels=given["labels"],
        ).logits
    assert_close(again, wanted, terms_of(found))


def test_embeddings_may_be_given_in_place_of_ids() -> None:
    for family in FAMILIES:
        found, given = adapted(family), batch(family)
        wanted = logits(found, given)
        embeddings = found.get_input_embeddings()(given.pop("input_ids"))
        assert_close(logits(found, {**given, "inputs_embeds": embeddings}), wanted, terms_of(found), family)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_router_never_reads_the_answer(family: str) -> None:
    found, given = adapted(family), batch(family)
    hooks = adapters_of(found).hooks
    routes = []
    for answer in (5, 6):
        ids = torch.where(given["labels"] >= 0, answer, given["input_ids"])
        found(input_ids=ids, attention_mask=given["attention_mask"], labels=given["labels"])
        routes.append(hooks.source.contribution.route_probs)
    assert torch.equal(*routes)
    lengths = (given["attention_mask"] * (given["labels"] == -100)).sum(dim=1)
    found(input_ids=ids, attention_mask=given["attention_mask"], prompt_length=lengths)
    assert_close(hooks.source.contribution.route_probs, routes[0], terms_of(found))
    found.generate(**prompts(family), max_new_tokens=2)
    assert_close(hooks.source.contribution.route_probs, routes[0], terms_of(found))
    with pytest.raises(DataError, match="all tokens are labelled"):
        found(input_ids=ids, labels=ids)
    with pytest.raises(DataError, match="must know where the prompt ends"):
        found.train()(input_ids=ids)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["multimask", "smop"])
def test_gradient_checkpointing_gives_the_same_gradients(family: str, method: str) -> None:
    found, given = adapted(family, method, perturb_router=False, router_dropout=0.0), batch(family)
    plain = {name: value for name, value in found.named_parameters() if value.requires_grad}
    for module in found.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    found.config.dropout = 0.0
    wanted, found_gradients = {}, {}
    adapters_of(found).backbone_dropout = False
    for target in (wanted, found_gradients):
        found.train()
        first = found(**given).loss
        found(**{name: value.flip(0) for name, value in given.items()})  # another pass before the gradients
        first.backward()
        target.update({name: value.grad.clone() for name, value in plain.items()})
        found.zero_grad()
        found.gradient_checkpointing_enable()
    assert_gradients_close(found_gradients, wanted, terms_of(found, given["input_ids"].numel()))


def test_the_frozen_network_drops_out_as_asked() -> None:
    given = batch("t5")
    for wish in (True, False):
        found = mmpt.adapt(model("t5", dropout_rate=0.5), mmpt.Prefix(), backbone_dropout=wish, seed=1).train()
        with torch.no_grad():
            assert torch.equal(found(**given).logits, found(**given).logits) is not wish
        assert found.training and adapters_of(found).get("default").training


def test_a_seed_decides_the_values_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(9)
    state = torch.get_rng_state()
    plain = [model() for _ in range(3)]
    torch.set_rng_state(state)
    for number, built in enumerate(plain):
        mmpt.adapt(built, mmpt.MultiMask(), seed=number // 2)
    values = [dict(adapters_of(built).named_parameters()) for built in plain]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(values[0][name], values[1][name]) for name in values[0])
    assert any(not torch.equal(values[0][name], values[2][name]) for name in values[0])


def test_starting_values_of_the_vocabulary_need_no_tokenizer_and_a_text_does() -> None:
    found = mmpt.adapt(model(), mmpt.Prefix(init="vocab"), seed=0)
    assert all(value.abs().sum() > 0 for value in adapters_of(found).parameters())
    with pytest.raises(ConfigError, match="init=text needs the model's tokenizer"):
        mmpt.adapt(model(), mmpt.Prefix(init="text", init_text="a"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_copied_after_a_step(family: str) -> None:
    found, given = adapted(family).train(), batch(family)
    found(**given).loss.backward()
    again = copy.deepcopy(found)
    assert torch.equal(logits(again.eval(), given), logits(found.eval(), given))


def test_a_deep_copy_is_a_model_of_its_own() -> None:
    found, given = adapted("t5"), batch("t5")
    twin = copy.deepcopy(found)
    wanted = logits(found, given)
    mmpt.remove_adapter(found)
    assert torch.equal(logits(twin, given), wanted)
    assert twin.generate(**prompts("t5"), max_new_tokens=3, min_new_tokens=3).shape == (4, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_freed_with_its_last_user(family: str) -> None:
    found, given = adapted(family), batch(family)
    found(**given).loss.backward()
    engine_of(found)
    parts = {name: weakref.ref(module) for name, module in found.named_modules() if "mmpt_adapters" not in name}
    gc.disable()
    try:
        del found
        assert [name for name, part in parts.items() if part() is not None] == []
    finally:
        gc.enable()


def test_load_balance_is_part_of_the_loss() -> None:
    found, given = adapted("t5", load_balance=3.0, perturb_router=False, router_dropout=0.0), batch("t5")
    plain = float(found(**given).loss)
    hooks = adapters_of(found).hooks
    adapters_of(found).backbone_dropout = False
    found.train()
    loss = float(found(**given).loss)
    assert loss == pytest.approx(plain + float(hooks.source.contribution.auxiliary_loss), abs=1e-5)
    assert loss > plain + 1
    assert float(found(**given, return_dict=False)[0]) == pytest.approx(loss, abs=1e-5)


def test_what_cannot_be_adapted_says_why() -> None:
    found = adapted("t5")
    with pytest.raises(AdapterError, match=r"has an adapter 'default' already.*give another name"):
        mmpt.adapt(found, mmpt.Prefix())
    with pytest.raises(AdapterError, match="cannot be an adapter's name"):
        mmpt.adapt(found, mmpt.Prefix(), name="a.b")
    with pytest.raises(AdapterError, match="no options of a method"):
        mmpt.adapt(model(), {"num_routes": 4})  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="give a model of transformers"):
        mmpt.adapt(torch.nn.Linear(2, 2), mmpt.Prefix())  # type: ignore[type-var]
    with pytest.raises(ModelError, match="load t5 models as T5ForConditionalGeneration"):
        mmpt.adapt(T5EncoderModel(model().config), mmpt.Prefix())
    with pytest.raises(ModelError, match="load gpt2 models as GPT2LMHeadModel"):
        mmpt.adapt(GPT2ForSequenceClassification(model("gpt2").config), mmpt.Prefix())
    plain = model("gpt2")
    with pytest.raises(ConfigError, match="gpt2 models have no cross attention"):
        mmpt.adapt(plain, mmpt.Prefix(sites=["cross"]))
    assert not hasattr(plain, "mmpt_adapters") and all(value.requires_grad for value in plain.parameters())
    for call in (mmpt.remove_adapter, mmpt.trainable_parameters, mmpt.disable_adapter, mmpt.merge_adapter):
        with pytest.raises(AdapterError, match=r"has no adapter; give it one with mmpt\.adapt"):
            call(plain)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="num_routes=0"):
        mmpt.MultiMask(num_routes=0)


def test_parameters_are_counted_and_grouped() -> None:
    found = adapted("t5")
    counted = mmpt.trainable_parameters(found)
    assert counted.trainable == sum(value.numel() for value in found.parameters() if value.requires_grad)
    assert counted.total == sum(value.numel() for value in found.parameters())
    assert set(counted.groups) == {"prefix", "masks", "router"} and sum(counted.groups.values()) == counted.trainable
    assert all(name.startswith("mmpt_adapters.default.") for name in counted.names)
    words = f"trainable params: {counted.trainable:,} || all params: {counted.total:,} || trainable%: "
    assert str(counted).startswith(words)
    groups = mmpt.parameter_groups(found, lr={"prefix": 0.5, "masks": 0.1, "router": 0.01})
    assert [(group["name"], group["lr"]) for group in groups] == [("prefix", 0.5), ("masks", 0.1), ("router", 0.01)]
    assert sum(value.numel() for group in groups for value in group["params"]) == counted.trainable
    for lr, words in (
        ({"prefix": 0.1, "mask": 0.1, "router": 1}, 'lr has no group .mask.; the groups are .*; did you mean "masks"'),
        ({"prefix": 0.1}, "lr gives no rate for group 'masks'"),
        (0, "lr of 'prefix' is 0; give a positive number"),
        ("fast", "lr of 'prefix' is 'fast'"),
    ):
        with pytest.raises(ConfigError, match=words):
            mmpt.parameter_groups(found, lr=lr)  # type: ignore[arg-type]


def test_the_package_shows_signatures_and_docstrings() -> None:
    for name in mmpt.__all__:
        value = getattr(mmpt, name)
        assert name == "__version__" or (inspect.getdoc(value) and inspect.signature(value)), name
    assert next(iter(inspect.signature(mmpt.load).parameters)) == "directory"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mmpt.nothing  # noqa: B018
