from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mmpt.config.schema import EvaluationConfig, TaskConfig
from mmpt.data.encode import Continuation, TextToText
from mmpt.data.tasks import Example, Task
from mmpt.data.tokenized import TokenizedSplit
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
    encoded = TextToText(task, tokenizer, max_length=4).encode(examples)
    assert [feature["input_ids"] for feature in encoded.features] == [[5, 6, 1], [5, 6, 7, 1], [5, 6, 7, 1]]
    assert [feature["labels"] for feature in encoded.features] == [[3, 1], [4, 1], [3, 1]]
    assert encoded.truncated == 1


def test_encode_free_text_keeps_the_end_of_a_cut_target(tokenizer: PreTrainedTokenizerFast) -> None:
    task = Task(TaskConfig("own", "{x}"))
    encoding = TextToText(task, tokenizer, max_length=3)
    encoded = encoding.encode([_example("a", "a b c d"), _example("a", None)])
    first, second = encoded.features
    assert first == {"input_ids": [5, 1], "labels": [5, 6, 1], "index": 0}
    assert second == {"input_ids": [5, 1], "index": 1}
    assert encoded.truncated == 1
    assert encoding.encode([]).features == []


def test_label_ids_end_like_targets(configs: dict[str, TaskConfig], tokenizer: PreTrainedTokenizerFast) -> None:
    assert TextToText(Task(configs["rte"]), tokenizer, 4).candidates == [[3, 1], [4, 1]]


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
        TextToText(task, tokenizer, 4)


def test_label_that_tokenises_to_nothing(configs: dict[str, TaskConfig], tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("_", "")
    task = Task(replace(configs["rte"], labels={"a": [], "_": []}))
    with pytest.raises(DataError, match='makes nothing of the label "_"'):
        TextToText(task, tokenizer, 4)


def test_a_limit_of_new_tokens_that_cuts_a_label_is_refused(
    configs: dict[str, TaskConfig], tokenizer: PreTrainedTokenizerFast
) -> None:
    encoding = TextToText(Task(replace(configs["rte"], labels={"a": [0], "a b c": [1]})), tokenizer, 9)
    with pytest.raises(DataError, match=r'max_new_tokens=2 is too small for the label "a b c", which has 3 tokens'):
        encoding.check_generation(EvaluationConfig(["generation"], max_new_tokens=2))
    encoding.check_generation(EvaluationConfig(["generation"], max_new_tokens=3))  # the end token need not be written
    encoding.check_generation(EvaluationConfig(["ranking"], max_new_tokens=1))


def test_cut_texts_and_free_targets_are_noted(tokenizer: PreTrainedTokenizerFast) -> None:
    encoding = TextToText(Task(TaskConfig("own", "{x}")), tokenizer, 4)
    split = encoding.encode([_example("a b c d", "a"), _example("a", "a b c"), _example("a", None)])
    assert encoding.notes([split], EvaluationConfig(["generation"], max_new_tokens=2)) == [
        "1 of 3 texts were cut at data.max_length=4",
        "1 of 2 targets are longer than evaluation.max_new_tokens=2, so no output can match them",
    ]
    assert len(encoding.notes([split], EvaluationConfig(["generation"], max_new_tokens=3))) == 1


@pytest.mark.parametrize("end", [" ", "\t"])
def test_a_template_of_decoder_only_models_does_not_end_in_a_space(
    configs: dict[str, TaskConfig], tokenizer: PreTrainedTokenizerFast, end: str
) -> None:
    with pytest.raises(DataError, match="ends in a space, but decoder-only models get one before the label"):
        Continuation(Task(replace(configs["rte"], template="{premise} is:" + end)), tokenizer, 9)


def test_batches_hold_examples_of_similar_length(tokenizer: PreTrainedTokenizerFast) -> None:
    split = TextToText(Task(TaskConfig("own", "{x}")), tokenizer, 9).encode(
        [_example("a b c", None), _example("a", "a b c d"), _example("a b", None), _example("b", None)]
    )
    assert split.longest.tolist() == split.lengths.tolist() == [4, 2, 3, 2]
    assert list(split.batches(3)) == [[1, 3, 2], [0]]
    assert split.of_longest().examples == (split.examples[1],)
    assert split.of_longest().features == [{"input_ids": [5, 1], "labels": [5, 6, 7, 8, 1], "index": 0}]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_hold_little_padding(size: int) -> None:
    lengths = [*range(1, 300), *[40] * 100, 2000]
    features = [{"input_ids": [1] * length} for length in lengths]
    batches = list(TokenizedSplit(lengths, features, 0).batches(size))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert [lengths[row] for rows in batches for row in rows] == sorted(lengths)
    for rows in batches:
        real, padded = sum(lengths[row] for row in rows), len(rows) * max(lengths[row] for row in rows)
        assert len(rows) <= size and padded - real <= max(256, 0.1 * padded)
    for rows, following in pairwise(batches):  # no batch ends without need
        joined, longest = [lengths[row] for row in (*rows, following[0])], lengths[following[0]]
        padding = len(joined) * longest - sum(joined)
        assert len(joined) > size or padding > max(256, 0.1 * len(joined) * longest)
    assert batches[-1] == [len(lengths) - 1]
    assert list(TokenizedSplit([], [], 0).batches(size)) == []


def test_unknown_characters_are_noted_with_their_share(tokenizer: PreTrainedTokenizerFast) -> None:
    task, evaluation = Task(TaskConfig("own", "a {x}", labels={"a": [0], "b": [1]})), EvaluationConfig(["ranking"])
    encoding = TextToText(task, tokenizer, 9)
    known, chinese = (encoding.encode([_example(f"a {x}", "a") for x in texts]) for texts in ("bcd", "好坏中"))
    assert encoding.notes([known, known], evaluation) == []
    share, same = encoding.notes([chinese], evaluation)
    assert share == "the tokenizer does not know 50% of the characters of the texts: they are unknown tokens"
    assert same == "all 3 training texts have the same tokens, so nothing can be learnt"


def test_a_label_that_is_read_as_another_text_cannot_be_generated(tokenizer: PreTrainedTokenizerFast) -> None:
    encoding = TextToText(Task(TaskConfig("own", "{x}", labels={"a": [0], "b xyz": [1]})), tokenizer, 9)
    encoding.check_generation(EvaluationConfig(["ranking"]))
    with pytest.raises(DataError, match='the label "b xyz" reads "b" in this tokenizer\'s tokens'):
        encoding.check_generation(EvaluationConfig(["generation"]))
