"""Several adapters on one model, saving and loading, merging."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import mmpt
from mmpt.bundled import MODEL_DIR
from mmpt.errors import AdapterError, ConfigError
from mmpt.methods import parse
from mmpt.models.adapters import adapters_of
from tests.adapters import save
from tests.library.plain import FAMILIES, batch, model, prompts
from tests.tolerance import assert_close, terms_of


def changed(found: Any, name: str) -> Any:
    torch.manual_seed(sum(map(ord, name)))
    with torch.no_grad():
        for parameter in adapters_of(found).get(name).parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return found


def logits(found: Any, given: dict[str, Tensor], **more: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = found(**given, **more).logits
    return result


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["multimask", "smop", "lora", "ia3"])
def test_saved_and_loaded_it_is_the_same(family: str, method: str, tmp_path: Path) -> None:
    found, given = changed(mmpt.adapt(model(family), parse(method, {}), seed=1), "default"), batch(family)
    wanted = logits(found, given)
    assert mmpt.save_adapter(found, tmp_path / "a") == tmp_path / "a"
    again = mmpt.load_adapter(model(family), tmp_path / "a", name="mine")
    assert torch.equal(logits(again, given), wanted)
    assert adapters_of(again).active == "mine"
    other = model(family, seed=5)
    with pytest.raises(AdapterError, match=r"trained on other backbone weights .* load the model that it was"):
        mmpt.load_adapter(other, tmp_path / "a")
    assert not hasattr(other, "mmpt_adapters")


@pytest.mark.parametrize("family", ["t5", "llama", "bert"])
@pytest.mark.parametrize("methods", [("prefix", "multimask"), ("lora", "lora"), ("prefix", "lora"), ("ia3", "smop")])
def test_several_adapters_keep_apart(family: str, methods: tuple[str, str]) -> None:
    given = batch(family)
    alone, plain = [], logits(model(family), given)
    for name, method in zip(("a", "b"), methods, strict=True):
        found = changed(mmpt.adapt(model(family), parse(method, {}), name=name, seed=1), name).eval()
        alone.append(logits(found, given))
    both = model(family)
    for name, method in zip(("a", "b"), methods, strict=True):
        changed(mmpt.adapt(both, parse(method, {}), name=name, seed=1), name)
    for name, wanted in (("b", alone[1]), ("a", alone[0]), ("b", alone[1])):
        mmpt.set_adapter(both, name)
        assert_close(logits(both, given), wanted, terms_of(both), name)
        trained = {id(value) for value in both.parameters() if value.requires_grad}
        assert trained == {id(value) for value in adapters_of(both).get(name).parameters()}
    with mmpt.disable_adapter(both):
        assert_close(logits(both, given), plain, terms_of(both))
    mmpt.remove_adapter(both, "a")
    assert set(adapters_of(both).head.own) == {"b"}  # the head of the other is freed
    assert_close(logits(both, given), alone[1], terms_of(both))
    with pytest.raises(AdapterError, match=r"no adapter 'a'.*this model has 'b'"):
        mmpt.set_adapter(both, "a")
    mmpt.remove_adapter(both)
    assert torch.equal(logits(both, given), plain)


@pytest.mark.parametrize("family", ["t5", "bart", "gpt2", "llama"])
def test_rows_may_have_adapters_of_their_own(family: str) -> None:
    found, given = model(family), batch(family)
    cases = {"a": mmpt.Prefix(num_virtual_tokens=3), "b": mmpt.MultiMask(), "c": mmpt.SMoP(num_virtual_tokens=2)}
    for name, options in cases.items():
        changed(mmpt.adapt(found, options, name=name, seed=1), name)
    names = ["b", "c", "a", "b"]
    together = logits(found, given, adapter_names=names)
    ids = found.generate(**prompts(family), adapter_names=names, max_new_tokens=4, min_new_tokens=4, num_beams=2)
    for row, name in enumerate(names):
        mmpt.set_adapter(found, name)
        own = logits(found, {key: value[row : row + 1] for key, value in given.items()})
        real = given["labels"][row] >= 0 if family in ("t5", "bart") else given["attention_mask"][row].bool()
        assert_close(together[row, real], own[0, real], terms_of(found))
        alone = {key: value[row : row + 1] for key, value in prompts(family).items()}
        wanted = found.generate(**alone, max_new_tokens=4, min_new_tokens=4, num_beams=2)
        assert torch.equal(ids[row, -4:], wanted[0, -4:])
    for wrong, words in ((["a", "x", "a", "b"], "no adapter 'x'"), (["a"] * 3, "3 names for 4 rows")):
        with pytest.raises(AdapterError, match=words):
            found(**given, adapter_names=wrong)
    assert torch.equal(logits(found, given, adapter_names=names), together)  # an error leaves nothing behind


def test_what_cannot_share_a_batch_or_a_model_says_why() -> None:
    found, given = model(), batch("t5")
    mmpt.adapt(mmpt.adapt(found, mmpt.Prefix(), name="a"), mmpt.LoRA(), name="b")
    with pytest.raises(AdapterError, match=r"'b' cannot share a batch with others: method=lora changes"):
        found(**given, adapter_names=["a", "b", "a", "b"])
    with pytest.raises(AdapterError, match="method=lora of another adapter changes the model's own layers"):
        mmpt.adapt(found, mmpt.IA3(), name="c")
    with pytest.raises(ConfigError, match="method=prefix cannot be merged"):
        mmpt.merge_adapter(mmpt.remove_adapter(found, "b"), "a")
    full = mmpt.adapt(model(), mmpt.Full())
    for call in (mmpt.remove_adapter, lambda adapted: mmpt.disable_adapter(adapted).__enter__()):
        with pytest.raises(ConfigError, match="method=full"):
            call(full)
    assert not hasattr(mmpt.merge_adapter(full), "mmpt_adapters")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_merged_it_needs_no_adapter(family: str, method: str, tmp_path: Path) -> None:
    plain, given = model(family), batch(family)
    keys = set(plain.state_dict())
    found = changed(mmpt.adapt(plain, parse(method, {}), seed=1), "default")
    wanted = logits(found, given)
    merged = mmpt.merge_adapter(found)
    assert_close(logits(merged, given), wanted, terms_of(merged))
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(type(merged).from_pretrained(tmp_path), given), logits(merged.eval(), given))
    assert set(merged.state_dict()) == keys and not any("lora" in name for name, _ in merged.named_modules())


def toy() -> Any:
    return AutoModelForSeq2SeqLM.from_pretrained(MODEL_DIR)


@pytest.mark.parametrize("method", ["multimask", "smop", "lora"])
def test_a_runs_adapter_and_the_librarys_are_one_thing(method: str, tmp_path: Path) -> None:
    run = save(tmp_path / "run", "task=rte", f"method={method}", "evaluation.decoding=[ranking]")
    predictor = mmpt.load(run)
    rows = [{"premise": "the cat sat on the mat", "hypothesis": "a cat sat"}, {"premise": "a", "hypothesis": "b c"}]
    wanted = predictor.predict(rows)
    found = mmpt.load_adapter(toy(), run)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    sources = [row["source"] for row in wanted]
    given = tokenizer(sources, padding=True, return_tensors="pt")
    engine = predictor.model
    with torch.no_grad():
        encoded = engine.encode(given["input_ids"], given["attention_mask"])
        ranked = engine.rank(encoded, predictor.evaluator.candidates)
        for index, ids in enumerate(predictor.evaluator.candidates):
            labels = torch.tensor([ids] * 2)
            out = found(**given, labels=labels)
            scores = torch.log_softmax(out.logits, dim=-1).gather(2, labels.unsqueeze(2)).sum(dim=(1, 2))
            assert_close(scores, ranked[:, index], terms_of(found))
    mmpt.save_adapter(found, tmp_path / "again")
    stated = json.loads((tmp_path / "again" / "adapter.json").read_text())
    assert stated["backbone"]["source"] == "bundled"
    with pytest.raises(AdapterError, match="names no task; give task="):
        mmpt.load(tmp_path / "again")
    again = mmpt.load(tmp_path / "again", task="rte")
    assert [row["prediction"] for row in again.predict(rows)] == [row["prediction"] for row in wanted]
