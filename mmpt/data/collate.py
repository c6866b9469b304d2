"""From examples to token ids to batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Target = Callable[[str, "PreTrainedTokenizerBase"], list[int]]
IGNORED = -100  # the label value cross-entropy skips
SOURCES = ("input_ids", "attention_mask", "token_type_ids")  # tensors of a batch with a row for each source


@dataclass(frozen=True)
class Encoded:
    """Token ids of a split.

    Attributes:
        features: One dict an example: ``input_ids`` (of each choice, where the example has several sources),
            ``token_type_ids`` where the tokenizer gives some, and, where labelled, ``labels``; for decoder-only models
            ``continuations``, what may be read behind the source.
        truncated: How many examples had a source or a target longer than the limit.
    """

    features: list[dict[str, Any]]
    truncated: int


class TextToText:
    """How encoder-decoders read a task: a source, and the label words as targets."""

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Tokenise the label words.

        Args:
            task: The task.
            tokenizer: The backbone's tokenizer.
            max_length: Most tokens of a source.

        Raises:
            DataError: A label word can't be told from another, or tokenises to nothing.
        """
        self.task, self.tokenizer, self.max_length = task, tokenizer, max_length
        self.candidates = [] if task.free_text else label_ids(task, tokenizer, self.target)

    def target(self, text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of a target, with the end token."""
        return _target_ids(text, tokenizer)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """See :func:`encode`."""
        return encode(examples, self.task, self.tokenizer, self.max_length, self.target)


class Continuation(TextToText):
    """How decoder-only models read a task: the label word goes on with the text, after a space, and ends it.

    The space belongs to the label, as in lm-evaluation-harness (target_delimiter), so that its first token is the one
    a text has there. The end token, which is not scored there, is part of every label: a trained model has to learn
    where to stop, and of two labels one may begin with the other.
    """

    def target(self, text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """See the base class: the pieces that a text gains by a space and the target.

        Raises:
            DataError: The tokenizer joins text before the space to what follows it.
        """
        before, both = (
            tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"] for words in ("a", f"a {text}")
        )
        if both[: len(before)] != before:
            raise DataError(f'the tokenizer has no border before "{text}" in "a {text}"; choose another word')
        end = tokenizer.eos_token_id
        return [*both[len(before) :], *([] if end is None else [end])]

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """See :func:`encode`; an empty source is one token, of which the first label token is predicted.

        Continuations are all labels, and a target that is none of them, each without its last token, which no model
        reads; one of no tokens where there is neither.
        """
        encoded, tokenizer = super().encode(examples), self.tokenizer
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        choices = [ids[:-1] for ids in self.candidates] or [[]]
        for feature in encoded.features:
            feature["input_ids"] = feature["input_ids"] or [start]
            feature["continuations"] = choices
            if "labels" in feature and feature["labels"][:-1] not in choices:  # free text, or cut at the longest length
                feature["continuations"] = [*(choices if self.candidates else []), feature["labels"][:-1]]
        return encoded


def encode(
    examples: Sequence[Example],
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    target: Target | None = None,
) -> Encoded:
    """Tokenise sources and targets.

    Args:
        examples: N examples.
        task: Their task.
        tokenizer: The backbone's tokenizer.
        max_length: Most tokens of a source, and of a target, including the end token.
        target: Ids of a target; None: as encoder-decoders have them.

    Raises:
        DataError: A label tokenises to nothing, or like another one.
    """
    target = target or _target_ids
    if not task.free_text:
        label_ids(task, tokenizer, target)
    sources, truncated = _source_ids([example.source for example in examples], tokenizer, max_length)
    targets: dict[str, list[int]] = {}
    features: list[dict[str, Any]] = []
    for number, (example, ids) in enumerate(zip(examples, sources, strict=True)):
        feature: dict[str, Any] = {"input_ids": ids}
        if example.target is not None:
            if example.target not in targets:
                targets[example.target] = target(example.target, tokenizer)
            labels = targets[example.target]
            if len(labels) > max_length:
                truncated.add(number)
                labels = [*labels[: max_length - 1], labels[-1]]  # keeps the end token
            feature["labels"] = list(labels)
        features.append(feature)
    return Encoded(features, len(truncated))


def label_ids(task: Task, tokenizer: PreTrainedTokenizerBase, target: Target | None = None) -> list[list[int]]:
    """Token ids of every label word, with the end token.

    Args:
        task: A task with labels.
        tokenizer: The backbone's tokenizer.
        target: See :func:`encode`.

    Returns:
        One list a word, in the order of ``task.words``.

    Raises:
        DataError: A word tokenises to nothing or to unknown tokens alone, or two words to the same ids.
    """
    found: dict[tuple[int, ...], str] = {}
    for word in task.words:
        content = tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
        if all(token == tokenizer.unk_token_id for token in content):
            what = "unknown tokens alone" if content else "nothing"
            raise DataError(
                f'task "{task.name}": the tokenizer makes {what} of the label "{word}"; choose another word'
            )
        ids = tuple((target or _target_ids)(word, tokenizer))
        if ids in found:
            raise DataError(
                f'task "{task.name}": the labels "{found[ids]}" and "{word}" have the same token ids {list(ids)}; '
                "choose words this tokenizer tells apart"
            )
        found[ids] = word
    return [list(ids) for ids in found]


def _source_ids(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[list[int]], set[int]]:
    """Ids of every text, and the numbers of those that were cut."""
    if not texts:
        return [], set()
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=True, verbose=False)["input_ids"]
    truncated = {number for number, found in enumerate(ids) if len(found) > max_length}
    for number in truncated:  # again, so that the tokenizer keeps its special tokens as it wants them
        ids[number] = tokenizer(texts[number], truncation=True, max_length=max_length, verbose=False)["input_ids"]
    return ids, truncated


def _target_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = list(tokenizer(text_target=text, verbose=False)["input_ids"])
    end = tokenizer.eos_token_id
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


@dataclass(frozen=True)
class Collator:
    """Pads features to a batch.

    Attributes:
        pad_token_id: What fills ``input_ids``.
    """

    pad_token_id: int

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad at the right to the longest of the batch.

        Args:
            features: B features as of :func:`encode`; what only some have is kept where the first has it.

        Returns:
            int64 tensors: ``input_ids`` and ``attention_mask`` (B, T), or (B, C, T) for examples with C sources,
            ``token_type_ids`` of that shape where there are some, ``labels`` (B, U) and ``continuations`` (B, C, V)
            padded by -100, ``index`` (B,).
        """
        inputs = [ids for feature in features for ids in sources(feature)]
        batch = {
            "input_ids": _padded(inputs, self.pad_token_id),
            "attention_mask": _padded([[1] * len(ids) for ids in inputs], 0),
        }
        if "token_type_ids" in features[0]:
            types = [ids for feature in features for ids in sources(feature, "token_type_ids")]
            batch["token_type_ids"] = _padded(types, 0)
        if isinstance(features[0]["input_ids"][0], list):
            batch = {name: rows.unflatten(0, (len(features), -1)) for name, rows in batch.items()}
        if "labels" in features[0]:
            batch["labels"] = _padded([feature["labels"] for feature in features], IGNORED)
        if "continuations" in features[0]:
            batch["continuations"] = _continuations([feature["continuations"] for feature in features])
        if "index" in features[0]:
            batch["index"] = torch.tensor([int(feature["index"]) for feature in features], dtype=torch.int64)
        return batch


def sources(feature: Mapping[str, Any], name: str = "input_ids") -> list[list[int]]:
    """Ids of an example's sources: one, or as many as it has choices."""
    ids: list[Any] = feature[name]
    return ids if isinstance(ids[0], list) else [ids]


def _continuations(found: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
    """(B, C, V) int64, padded by -100."""
    most = max(map(len, found))
    rows = [ids for each in found for ids in [*each, *[[]] * (most - len(each))]]
    return _padded(rows, IGNORED).unflatten(0, (len(found), most))


def _padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """(B, longest) int64."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows], dtype=torch.int64)
