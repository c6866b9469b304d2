"""``router_standardize``: the router reads how far a text is from the mean of the training texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mmpt
from mmpt.cli import main
from mmpt.config.schema import DataConfig
from mmpt.data.collate import Collator
from mmpt.data.mixture import load_all
from mmpt.errors import AdapterError, DataError, ModelError
from mmpt.methods import parse
from mmpt.methods.base import mean_embedding
from mmpt.methods.router import Router
from mmpt.models.adapter_files import load_state, read_adapter
from mmpt.models.method_check import report
from tests.reliability.faults import Bomb, command
from tests.tiny import adapted, batch
from tests.tolerance import assert_close, terms_of
from tests.training.test_mixture_runs import WORDS as MIXTURE

WORDS = [*MIXTURE, "trainer.max_steps=12", "trainer.eval_steps=3", "method.router_standardize=true"]


def test_the_router_reads_the_difference_in_standard_deviations() -> None:
    router = Router(6, parse("multimask", {"router_standardize": True})).eval()
    means = torch.randn(50, 6) * torch.tensor([1.0, 2.0, 3.0, 0.1, 1.0, 0.0]) + 7.0
    router.standardize([means[:7], means[7:]])
    read = (means - means.mean(dim=0)) / means.std(dim=0, correction=0)
    read[:, 5] = 0.0  # which is the same in all texts
    assert_close(router(means), torch.softmax(read @ router.weight.T, dim=-1), 100)


def test_all_texts_may_be_the_same() -> None:
    router = Router(6, parse("smop", {"router_standardize": True})).eval()
    router.standardize([torch.ones(1, 6)])
    assert_close(router(torch.ones(2, 6)), torch.full((2, 4), 0.25), 6)
    with pytest.raises(ModelError, match="without texts"):
        router.standardize([])


def test_a_value_that_differs_by_rounding_alone_is_the_same_in_all_texts() -> None:
    router = Router(3, parse("multimask", {"router_standardize": True}))
    lengths = torch.arange(1, 40)
    mask = torch.arange(40) < lengths[:, None]
    words = torch.cat([torch.full((39, 40, 1), 0.1), torch.randn(39, 40, 2)], dim=2)
    means = mean_embedding(words, mask)
    assert 0 < means[:, 0].std() < 1e-6  # as texts of other lengths are summed
    router.standardize([means])
    assert router.deviation[0] == 1 and (router.deviation[1:] < 1).all()


@pytest.mark.parametrize("method", ["multimask", "smop"])
@pytest.mark.parametrize("model_type", ["t5", "gpt2"])
def test_training_begins_with_the_training_texts(method: str, model_type: str, tmp_path: Path) -> None:
    model = adapted(method, {"router_standardize": True}, model_type=model_type)
    ids, mask, labels = batch()
    with pytest.raises(ModelError, match=r"call mmpt\.standardize_router\(model, batches\) before training"):
        model.train()(ids, mask, labels)
    rows = _inputs(model_type, ids, mask, labels)
    with pytest.raises(AdapterError, match="has not read the training texts"):
        mmpt.save_adapter(model.backbone, tmp_path)
    two = {key: part[:2] for key, part in rows.items()}
    assert mmpt.standardize_router(model.backbone, [two, rows]) is model.backbone
    model.eval()
    read = mean_embedding(model.backbone.get_input_embeddings()(ids), mask)
    read = torch.cat([read[:2], read])
    assert_close(model.method.router.mean, read.mean(dim=0), terms_of(model))
    assert_close(model.method.router.deviation, read.std(dim=0, correction=0), terms_of(model))
    model.train()(ids, mask, labels).loss.backward()
    assert model.method.router.weight.grad.abs().max() > 0
    mmpt.save_adapter(model.backbone, tmp_path / "saved")
    loaded = read_adapter(tmp_path / "saved")
    again = adapted(method, {"router_standardize": True}, model_type=model_type)
    with torch.no_grad():
        again.method.router.weight.zero_()
    load_state(again.method, loaded.state, "here")
    again.train()(ids, mask, labels)  # it needs no texts any more
    assert torch.equal(again.eval()(ids, mask, labels).losses, model.eval()(ids, mask, labels).losses)
    for wrong in (0.0, -1.0):
        state = {**loaded.state, "router.deviation": loaded.state["router.deviation"].clone().fill_(wrong)}
        with pytest.raises(
            AdapterError, match=r"here: router\.deviation holds a standard deviation that is not above 0"
        ):
            load_state(again.method, state, "here")


def _inputs(model_type: str, ids: Tensor, mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Keyword arguments of a model of transformers; decoder-only ones get the prompt alone."""
    if model_type == "t5":
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {"input_ids": ids, "attention_mask": mask, "prompt_length": mask.sum(dim=1)}


def test_a_decoder_only_model_must_say_where_prompts_end() -> None:
    model = adapted("multimask", {"router_standardize": True}, model_type="gpt2")
    ids, mask, _ = batch()
    with pytest.raises(DataError, match="give labels or prompt_length in each batch"):
        mmpt.standardize_router(model.backbone, [{"input_ids": ids, "attention_mask": mask}])


def test_only_a_router_that_standardizes_takes_texts() -> None:
    rows = [_inputs("t5", *batch())]
    with pytest.raises(AdapterError, match="no router with router_standardize=True"):
        mmpt.standardize_router(adapted("multimask").backbone, rows)
    with pytest.raises(AdapterError, match="there are no batches"):
        mmpt.standardize_router(adapted("multimask", {"router_standardize": True}).backbone, [])


@pytest.mark.parametrize("method", ["multimask", "smop"])
def test_no_effect_without_routes(method: str) -> None:
    with pytest.raises(mmpt.errors.ConfigError, match=r"method\.router_standardize=True has no effect without routes"):
        parse(method, {"router_standardize": True, "num_routes": 1})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("standardized") / "run"
    assert main([f"run.dir='{directory}'", *WORDS]) == 0
    return directory


def test_a_run_saves_mean_and_deviation_of_its_training_texts(run: Path) -> None:
    saved = load_file(run / "adapter" / "adapter.safetensors")
    loaded = mmpt.load(run)
    split = loaded.evaluator.prepare(_splits(loaded).train)
    rows = Collator(0)(split.at(range(len(split.examples))))
    embeddings = loaded.model.backbone.get_input_embeddings()(rows["input_ids"])
    read = mean_embedding(embeddings, rows["attention_mask"])
    assert_close(saved["router.mean"], read.mean(dim=0), len(read))
    assert_close(saved["router.deviation"], read.std(dim=0, correction=0), len(read))


def test_a_saved_run_predicts_the_same_bits(run: Path) -> None:
    loaded = mmpt.load(run)
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    split = loaded.evaluator.prepare(_splits(loaded).test)
    found = loaded.evaluator.rows(split, loaded.evaluator.predict(loaded.model, split, "ranking"))
    assert [row["probabilities"] for row in found] == [line["probabilities"] for line in lines]


def _splits(loaded: Any) -> Any:
    data = DataConfig("bundled", limit_train=40, limit_validation=20, limit_test=20)
    return load_all(loaded.evaluator.task, data)


@pytest.mark.parametrize("read", ["embedding", "encoder"])
def test_the_cache_changes_nothing(tmp_path: Path, read: str) -> None:
    found = []
    for cache in ("off", "ram"):
        words = [*WORDS, f"method.router_input={read}", "trainer.max_steps=3", f"cache={cache}"]
        assert main([f"run.dir='{tmp_path / cache}'", *words]) == 0
        found.append(load_file(tmp_path / cache / "adapter" / "adapter.safetensors"))
    assert_close(found[0]["router.mean"], found[1]["router.mean"], 40)
    assert_close(found[0]["router.deviation"], found[1]["router.deviation"], 40)


@pytest.mark.parametrize("read", ["embedding", "layer_below"])
def test_the_method_is_sound_on_every_network(read: str) -> None:
    assert report("multimask", {"router_standardize": True, "router_input": read, "layers": "last_1"}) == []


def test_a_killed_run_resumes_to_the_same_adapter(run: Path, tmp_path: Path) -> None:
    words = [f"run.dir='{tmp_path}/run'", f"cache.dir='{tmp_path}/cache'", *WORDS, "trainer.save_steps=2"]
    assert command(tmp_path, words, Bomb("step", 10)) == [-9]
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-4").is_dir()
    assert command(tmp_path, words) == [0]
    first, second = (load_file(place / "adapter" / "adapter.safetensors") for place in (run, tmp_path / "run"))
    assert all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())


def test_a_run_that_starts_from_another_has_its_router_and_what_it_reads(run: Path, tmp_path: Path) -> None:
    words = [*WORDS, "mix.tasks=[rte,boolq]", "method.init=adapter", f"method.init_adapter='{run}'"]
    words += ["trainer.max_steps=1", "method.lr.router=0.000000000001"]
    assert main([f"run.dir='{tmp_path}/run'", *words]) == 0
    first, second = (load_file(place / "adapter" / "adapter.safetensors") for place in (run, tmp_path / "run"))
    for name in ("router.mean", "router.deviation"):
        assert torch.equal(first[name], second[name])
    assert torch.allclose(first["router.weight"], second["router.weight"], atol=1e-6)
