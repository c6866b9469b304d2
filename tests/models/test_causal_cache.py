"""Decoder-only models go on from cached states of source and labels: losses, ranks, packs, and what prevents it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpt.cache.activations import compute
from mmpt.config.schema import CacheConfig
from mmpt.data.collate import IGNORED, Collator
from mmpt.models.adapted import AdaptedModel
from mmpt.training.caching import SplitCache
from mmpt.training.evaluate import Prepared
from tests.tiny import adapted
from tests.tolerance import assert_close, terms_of

LABELS = [[17, 33, 1], [40, 1], [17, 60, 8, 1]]
SOURCES = [[5, 9, 12, 80, 7, 31, 22], [44, 3, 9, 18, 71], [90], [8, 8, 23, 65, 11, 50]]
GOLD = [1, 0, 2, 0]
LAST = {"layers": "last_1", "num_virtual_tokens": 4}


def data(rows: list[int]) -> dict[str, Tensor]:
    """A batch as a run has it, without cached states."""
    choices = [ids[:-1] for ids in LABELS]
    features = [
        {"input_ids": SOURCES[row], "labels": LABELS[GOLD[row]], "continuations": choices, "index": row} for row in rows
    ]
    batch = Collator(0)(features)
    batch.pop("index")
    return batch


def with_states(model: AdaptedModel, rows: list[int], together: list[int] | None = None) -> dict[str, Tensor]:
    """The same with states, which were computed in another batch."""
    order = [2, 0, 3, 1] if together is None else together
    extra = sum(len(ids) - 1 for ids in LABELS)
    found = compute(model, [len(ids) + extra for ids in SOURCES], [(order, data(order))])
    assert found.states.shape[0] == sum(map(len, SOURCES)) + extra * len(SOURCES), "padding is kept"
    return {**data(rows), **found.batch(rows)}


def trained(model: AdaptedModel, batch: dict[str, Tensor]) -> list[float]:
    optimizer = torch.optim.SGD(model.method.parameters(), lr=0.1)
    torch.manual_seed(4)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model.train()(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"])
def test_losses_and_ranks_are_the_plain_ones_over_steps(model_type: str) -> None:
    rows, losses, ranks = [1, 3, 0, 2], [], []
    for cached in (False, True):
        model = adapted("multimask", LAST, model_type=model_type)
        assert model.cacheable_layers.count == 2
        batch = with_states(model, rows) if cached else data(rows)
        losses.append(trained(model, batch))
        model.eval()
        with torch.no_grad():
            encoded = model.start(batch)
            ranks.append(model.rank(encoded, LABELS))
            assert (encoded.label_states is not None) is cached
        assert len(model.injection.architecture.layers(model.backbone, "self")) == 3, "the stack lost layers"
    assert losses[0][-1] != losses[0][0]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert_close(ranks[1], ranks[0], terms_of(model.backbone))
    assert torch.equal(ranks[1].argmax(dim=1), ranks[0].argmax(dim=1))


def test_states_do_not_depend_on_the_batch() -> None:
    model = adapted("prefix", LAST, model_type="qwen3").eval()
    rows = [0, 1, 2, 3]
    whole = with_states(model, rows)["states"]
    reversed_order = with_states(model, rows, [3, 2, 1, 0])["states"]
    assert_close(whole, reversed_order, terms_of(model.backbone))


def test_a_target_that_is_no_label_has_states_of_its_own() -> None:
    model = adapted("prefix", LAST, model_type="llama").eval()
    batch = Collator(0)(
        [
            {"input_ids": SOURCES[0], "labels": LABELS[0], "continuations": [LABELS[0][:-1]]},
            {"input_ids": SOURCES[1], "labels": [9, 9, 9, 1], "continuations": [LABELS[0][:-1], [9, 9, 9]]},
            {"input_ids": SOURCES[2], "labels": [7, IGNORED], "continuations": [[]]},
        ]
    )
    lengths = [len(SOURCES[0]) + 2, len(SOURCES[1]) + 5, len(SOURCES[2])]
    states = compute(model, lengths, [([0, 1, 2], batch)]).batch([0, 1, 2])
    with torch.no_grad():
        plain, cached = model(**batch), model(**batch, **states)
        assert_close(plain.losses, cached.losses, terms_of(model.backbone))
        with pytest.raises(ValueError, match="is not among the continuations of its source"):
            model.rank(model.start({**batch, **states}), LABELS)


def test_generation_runs_all_layers() -> None:
    model = adapted("prefix", LAST, model_type="opt").eval()
    found = [
        model.generate(model.start(batch), max_new_tokens=4, do_sample=False)
        for batch in (data([0, 1]), with_states(model, [0, 1]))
    ]
    assert torch.equal(*found)


def test_what_prevents_it() -> None:
    every = adapted("prefix", {}, model_type="llama").cacheable_layers.reason
    assert every == "method=prefix has a prefix in every layer of site self"
    moved = adapted("prefix", {**LAST, "layout": "peft"}, model_type="llama").cacheable_layers.reason
    assert moved == "method=prefix moves the text's positions in every layer"
    assert "a prompt before the text" in str(adapted("smop", {}, model_type="llama").cacheable_layers.reason)


def test_other_labels_are_another_entry() -> None:
    model = adapted("prefix", LAST, model_type="llama")
    evaluator: Any = SimpleNamespace(cut=lambda split: [[0]])
    cache = SplitCache(CacheConfig(), model, "weights", "tiny", evaluator, short=False, note=print)
    labels = [[[5], [6]], [[5], [7]], [[6], [5]], [[5, 6]], [[5]]]
    keys = {cache._key(Prepared((), [{"input_ids": [8, 9], "continuations": each}], 0)) for each in labels}
    assert len(keys) == len(labels)
