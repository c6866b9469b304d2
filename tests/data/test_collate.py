from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mmpt.config.schema import TaskConfig
from mmpt.data.collate import Collator, encode, label_ids
from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError

WORDS = ["<pad>", "</s>", "<unk>", "entailment", "not_entailment", "a", "b", "c", "d"]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, lower-cased, closed by </s>, as a T5 tokenizer is."""
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=4
    )


def _example(source: str, target: str | None = "entailment") -> Example:
    return Example("0", source, target, None if target is None else 0, None)


def test_encode_counts_and_cuts_what_is_too_long(
    configs: dict[str, TaskConfig], tokenizer: PreTrainedTokenizerFast
) -> None:
    task = Task(configs["rte"])
    examples = [_example("a b"), _example("a b c d a", "not_entailment"), _example("a b c")]
    encoded = encode(examples, task, tokenizer, max_length=4)
    assert [feature["input_ids"] for feature in encoded.features] == [[5, 6, 1], [5, 6, 7, 1], [5, 6, 7, 1]]
    assert [feature["labels"] for feature in encoded.features] == [[3, 1], [4, 1], [3, 1]]
    assert encoded.truncated == 1


def test_encode_free_text_keeps_the_end_of_a_cut_target(tokenizer: PreTrainedTokenizerFast) -> None:
    task = Task(TaskConfig("own", "{x}"))
    encoded = encode([_example("a", "a b c d"), _example("a", None)], task, tokenizer, max_length=3)
    assert encoded.features == [{"input_ids": [5, 1], "labels": [5, 6, 1]}, {"input_ids": [5, 1]}]
    assert encoded.truncated == 1
    assert encode([], task, tokenizer, max_length=3).features == []


def test_label_ids_end_like_targets(configs: dict[str, TaskConfig], tokenizer: PreTrainedTokenizerFast) -> None:
    assert label_ids(Task(configs["rte"]), tokenizer) == [[3, 1], [4, 1]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("entailment", "Entailment"), r'"entailment" and "Entailment" have the same token ids \[3, 1\]'),
        (("entailment", "xyz"), 'unknown tokens alone of the label "xyz"'),
        (("entailment", "\u200b \u2028"), "label"),
    ],
)
def test_labels_the_tokenizer_cannot_tell(
    configs: dict[str, TaskConfig], tokenizer: PreTrainedTokenizerFast, words: tuple[str, str], message: str
) -> None:
    task = Task(replace(configs["rte"], labels={word: [] for word in words}))
    with pytest.raises(DataError, match=message):
        label_ids(task, tokenizer)
    with pytest.raises(DataError, match=message):
        encode([_example("a")], task, tokenizer, max_length=4)


def test_label_that_tokenises_to_nothing(configs: dict[str, TaskConfig], tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("_", "")
    task = Task(replace(configs["rte"], labels={"a": [], "_": []}))
    with pytest.raises(DataError, match='makes nothing of the label "_"'):
        label_ids(task, tokenizer)


def test_batches_are_padded_and_masked() -> None:
    features = [
        {"input_ids": [5, 6, 1], "labels": [3, 1], "index": 9},
        {"input_ids": [5, 1], "labels": [4, 3, 1], "index": 2},
    ]
    batch = Collator(pad_token_id=7)(features)
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[5, 6, 1], [5, 1, 7]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [[3, 1, -100], [4, 3, 1]],
        "index": [9, 2],
    }
    assert all(value.dtype == torch.int64 for value in batch.values())
    assert set(Collator(0)([{"input_ids": [1]}])) == {"input_ids", "attention_mask"}
