"""What a loaded run offers: predictions, scores, texts and embeddings, for rows or plain texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import mmpt
from mmpt.bundled.tasks import records
from mmpt.cli import main
from mmpt.errors import AdapterError, ConfigError, DataError
from tests.adapters import save
from tests.library.plain import model
from tests.tolerance import assert_close, terms_of

TASK: dict[str, Any] = {"name": "tone", "template": "tone: {text}", "labels": {"good": ["good"], "bad": ["bad"]}}
TEXTS = ["a cat sat on the mat", "a dog", "the cat ran"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("run"), "task=rte", "method=smop")


def test_texts_are_rows_of_a_task_with_one_field(directory: Path) -> None:
    predictor = mmpt.load(directory, task=TASK)
    rows = predictor.predict(TEXTS)
    assert [row["source"] for row in rows] == [f"tone: {text}" for text in TEXTS]
    assert rows == predictor.predict([{"text": text} for text in TEXTS])
    scores = predictor.scores(TEXTS)
    assert [row["probabilities"] for row in rows] == scores and all(set(each) == {"good", "bad"} for each in scores)
    answers = predictor(TEXTS)
    assert [each["label"] for each in answers] == [row["prediction"] for row in rows]
    assert answers[0]["score"] == max(scores[0].values())
    alone = predictor(TEXTS[0])  # another batch: the same label, and the score up to rounding
    assert alone["label"] == answers[0]["label"]
    assert_close(torch.tensor(alone["score"]), torch.tensor(answers[0]["score"]), terms_of(predictor.model))
    assert predictor.predict([]) == [] and predictor.embed([]).shape[0] == 0


def test_it_generates_and_embeds(directory: Path, tmp_path: Path) -> None:
    predictor = mmpt.load(directory, task=TASK)
    texts = predictor.generate(TEXTS)
    assert len(texts) == 3 and all(isinstance(text, str) for text in texts)
    assert predictor.generate(TEXTS, max_new_tokens=10, do_sample=False) == texts
    together = predictor.embed(TEXTS)
    assert together.shape == (3, predictor.model.width) and together.dtype == torch.float32
    alone = torch.cat([predictor.embed([text]) for text in TEXTS])
    assert_close(together, alone, terms_of(predictor.model))
    writes = save(tmp_path, "task=rte", "method=smop", "evaluation.decoding=[generation]")
    free = mmpt.load(writes, task={**TASK, "labels": {}})
    assert free(TEXTS[0]) == {"generated_text": texts[0]}
    with pytest.raises(DataError, match="has free text, so no label words"):
        free.scores(TEXTS)


def test_a_wrong_type_gets_one_line(directory: Path) -> None:
    single, pair = mmpt.load(directory, task=TASK), mmpt.load(directory)
    for call, words in (
        (lambda: single.predict("a text"), "a str is not a list of rows; give a list of mappings with text"),
        (lambda: single.predict([1]), "row 1 is a int; give a mapping with text or a text"),  # type: ignore[list-item]
        (lambda: single.embed(7), "a int is not a list of rows"),  # type: ignore[arg-type]
        (lambda: pair.predict(["a text"]), "row 1 is a str; give a mapping with premise, hypothesis"),
        (lambda: pair.scores([{"premise": "a"}]), "hypothesis"),
    ):
        with pytest.raises(DataError, match=words):
            call()  # type: ignore[no-untyped-call]


def test_the_task_and_the_backbone_of_a_librarys_adapter_are_asked_for(tmp_path: Path) -> None:
    mmpt.save_adapter(mmpt.adapt(model(), mmpt.Prefix()), tmp_path)
    with pytest.raises(AdapterError, match="names no task; give task="):
        mmpt.load(tmp_path)
    with pytest.raises(AdapterError, match="does not say where the backbone is; give model=DIR"):
        mmpt.load(tmp_path, task="rte")
    with pytest.raises(AdapterError, match=r'task=rt: there is no file .*did you mean "rte"'):
        mmpt.load(tmp_path, task="rt")


def test_routes_and_masks_of_rows(directory: Path, tmp_path: Path) -> None:
    masked = mmpt.load(save(tmp_path / "masked", "task=rte", "method=multimask", "method.num_routes=3"), task=TASK)
    routes = masked.routes(TEXTS)
    assert routes.shape == (3, 3) and routes.sum(dim=1).tolist() == pytest.approx([1] * 3)
    masks = masked.masks()
    values, layers = masks["cross"], masked.model.injection.shapes["cross"].layers
    assert set(masks) == {"decoder", "cross"} and values.shape == (3, 10, layers)
    assert float(values.min()) > 0 and float(values.max()) < 1
    assert mmpt.load(directory, task=TASK).masks() == {}
    plain = mmpt.load(save(tmp_path / "plain", "task=rte", "method=prefix"), task=TASK)
    with pytest.raises(ConfigError, match="method=prefix of this adapter has no router"):
        plain.routes(TEXTS)


@pytest.mark.parametrize("task", ["rte", "copa"])
def test_embeddings_are_means_of_the_states_that_predictions_come_from(task: str, tmp_path: Path) -> None:
    from tests.tiny_encoders import checkpoint

    words = [word for row in records(task)["test"][:2] for value in row.values() for word in str(value).split()]
    backbone = checkpoint(tmp_path / "bert", sorted(set(words)))
    words = [
        f"task={task}",
        "method=prefix",
        "model=local",
        f"model.path='{backbone}'",
        f"run.dir='{tmp_path / 'run'}'",
    ]
    words += ["trainer.max_steps=1", "trainer.eval_strategy=no", "data.limit_train=8", "data.max_length=60"]
    assert main([*words, "data.limit_validation=4", "data.limit_test=4", "logger=none"]) == 0
    predictor = mmpt.load(tmp_path / "run")
    read: list[dict[str, Any]] = []
    handle = predictor.backbone.model.register_forward_pre_hook(
        lambda module, args, given: read.append(dict(given)), with_kwargs=True, prepend=True
    )
    rows = records(task)["test"][:2]
    predictor.predict(rows)
    found = predictor.embed(rows)
    handle.remove()
    assert found.shape == (2, 24)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(read[0][name], read[1][name])
    assert read[1]["token_type_ids"].any()


def test_a_classifier_writes_no_text(tmp_path: Path) -> None:
    from tests.tiny_encoders import checkpoint

    backbone = checkpoint(tmp_path / "bert", ["a", "cat", "sat"])
    run = save(tmp_path / "run", "task=rte", "method=prompt", "model=local", f"model.path='{backbone}'")
    predictor = mmpt.load(run)
    rows = [{"premise": "a cat", "hypothesis": "sat"}]
    assert predictor.embed(rows).shape == (1, 24) and set(predictor.scores(rows)[0]) == {"entailment", "not_entailment"}
    with pytest.raises(ConfigError, match="write no text"):
        predictor.generate(rows)
