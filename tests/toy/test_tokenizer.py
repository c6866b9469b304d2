"""The toy's vocabulary: any text goes in, and comes out again."""

from __future__ import annotations

import string

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mmpt.bundled import MODEL_DIR
from tools.toy import lexicon, tasks


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MODEL_DIR)


def test_special_pieces_are_those_of_t5(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer("dog").input_ids[-1] == 1
    assert len(tokenizer("<extra_id_0> dog <extra_id_1>").input_ids) == 4


@pytest.mark.parametrize(
    "text",
    [
        string.ascii_letters + string.digits,
        " ".join(string.punctuation),
        "rte sentence1: Ünïcödé sentence2: naïve café",
        "漢字 and Ελληνικά, 🙂!",
        "Nevertheless, her heart sank at the thought.",
        "a {brace} [x] <b> \\ ``quoted'' it's",
    ],
)
def test_any_text_comes_back_without_unknown_pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\x00", "\u200b", "\ud7ff", "a" * 2000])
def test_odd_text_does_not_crash(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer(text).input_ids[-1] == 1


def test_words_of_the_world_are_one_piece(tokenizer: PreTrainedTokenizerBase) -> None:
    split = [w for w in lexicon.words() if len(tokenizer(w, add_special_tokens=False).input_ids) != 1]
    assert split == []


def test_label_words_differ_in_their_first_piece(tokenizer: PreTrainedTokenizerBase) -> None:
    for words in (("False", "True"), ("entailment", "not_entailment"), ("entailment", "contradiction", "neutral")):
        assert len({tokenizer(word).input_ids[0] for word in words}) == len(words)
    assert tokenizer("choice1").input_ids != tokenizer("choice2").input_ids


def test_pieces_never_cross_a_space(tokenizer: PreTrainedTokenizerBase) -> None:
    """What the curriculum's cache, word by word, relies on."""
    for row in tasks.records("boolq")["validation"][:50]:
        whole = tokenizer(row["passage"], add_special_tokens=False).input_ids
        words = [tokenizer(word, add_special_tokens=False).input_ids for word in row["passage"].split()]
        assert whole == [piece for word in words for piece in word]
