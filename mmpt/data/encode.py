"""From examples to token ids: what each kind of model reads of a task, and what it answers. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from string import Formatter
from typing import TYPE_CHECKING, Any

from mmpt.config.schema import EvaluationConfig
from mmpt.data.columns import values
from mmpt.data.metrics.answers import label_indices
from mmpt.data.stored import StoredExamples, tokenise
from mmpt.data.tasks import Example, Task
from mmpt.data.tokenized import TokenizedSplit
from mmpt.data.tokenizer import tokenizer_fingerprint
from mmpt.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READ = ("input_ids", "token_type_ids")  # what classifiers read of a tokenizer's output
FORMAT = 1  # raise it when the same example comes to have other features
SAMPLE = 500  # texts of a split among which unknown tokens are counted
UNKNOWN = 0.02  # share of characters from which on they are reported


class TextToText:
    """What encoder-decoders read: a source, and the label word as target.

    Attributes:
        candidates: Token ids of every label word with the end token, in the order of ``task.words``; empty for free
            text.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Tokenise the label words.

        Args:
            task: The task.
            tokenizer: The backbone's tokenizer.
            max_length: Most tokens of a source, and of a target with its end token.

        Raises:
            DataError: The tokenizer makes nothing of a label word, or the same of two; or the template's first text
                fills ``max_length``.
        """
        self.task, self.tokenizer, self.max_length = task, tokenizer, max_length
        self.end = tokenizer.eos_token_id  # of every target, as mmpt.data.special_tokens has it
        self.candidates = self._label_ids()
        self._check_opening()

    def target(self, text: str) -> list[int]:
        """Token ids of a target, with the end token."""
        ids: list[int] = list(self.tokenizer(text_target=text, verbose=False)["input_ids"])
        return ids if self.end is None or ids[-1:] == [self.end] else [*ids, self.end]

    def encode(self, examples: Sequence[Example]) -> TokenizedSplit:
        """Tokenise the sources and targets of N examples; of stored ones, into an Arrow file beside theirs."""
        if isinstance(examples, StoredExamples):
            kind, pieces = type(self).__name__, tokenizer_fingerprint(self.tokenizer)
            key = f"{FORMAT} {kind} {self.max_length} {pieces} {self.end} {self.candidates} {self.task.config!r}"
            rows, name = tokenise(examples, key, self.features)
            return TokenizedSplit(examples, rows, sum(cut for (cut,) in values(rows, "cut")), key=name)
        features = self.features(examples)
        return TokenizedSplit(tuple(examples), features, sum(feature.pop("cut") for feature in features))

    def features(self, examples: Sequence[Example], first: int = 0) -> list[dict[str, Any]]:
        """What a model reads of examples, the first of which has this number; ``cut`` is 1 where one was shortened."""
        targets: dict[str, list[int]] = {}
        features: list[dict[str, Any]] = []
        pairs = zip(examples, self._source_ids([example.source for example in examples]), strict=True)
        for index, (example, (ids, cut)) in enumerate(pairs, first):
            feature: dict[str, Any] = {"input_ids": ids, "index": index, "cut": cut}
            if example.target is not None:
                if example.target not in targets:
                    targets[example.target] = self.target(example.target)
                labels = targets[example.target]
                if len(labels) > self.max_length:
                    feature["cut"] = 1
                    labels = [*labels[: self.max_length - 1], labels[-1]]  # keeps the end token
                feature["labels"] = list(labels)
            features.append(feature)
        return features

    def check_generation(self, evaluation: EvaluationConfig) -> None:
        """Refuse label words that the model cannot write.

        Raises:
            DataError: ``evaluation.max_new_tokens`` is too small, or a label word is not what its tokens read.
        """
        if "generation" not in evaluation.decoding or not self.candidates:
            return
        lengths = [self._new_tokens(ids) for ids in self.candidates]
        needed = max(lengths)
        word = self.task.words[lengths.index(needed)]
        if needed > evaluation.max_new_tokens:
            raise DataError(
                f'evaluation.max_new_tokens={evaluation.max_new_tokens} is too small for the label "{word}", which has '
                f"{needed} tokens; set evaluation.max_new_tokens={needed}"
            )
        added = {self.end, *self.tokenizer("", verbose=False)["input_ids"]}
        rows = [[token for token in ids if token not in added] for ids in self.candidates]
        written = [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]
        for index, (word, text) in enumerate(zip(self.task.words, written, strict=True)):
            if label_indices(self.task.words, [text])[0] != index:
                raise DataError(
                    f'the label "{word}" reads "{text}" in this tokenizer\'s tokens, so no generated text can match; '
                    "choose another word, or set evaluation.decoding=[ranking]"
                )

    def notes(self, splits: Sequence[TokenizedSplit], evaluation: EvaluationConfig) -> list[str]:
        """What tokens lose of the texts, one line each: by the limits, or because the tokenizer does not know them.

        Args:
            splits: Training first.
            evaluation: Its limits.
        """
        notes, rows = self._unknown(splits), splits[0]
        texts = (example.source for example in rows.examples)
        if _all_equal(feature["input_ids"] for feature in rows) and not _all_equal(texts):
            notes.append(f"all {len(rows.examples)} training texts have the same tokens, so nothing can be learnt")
        return [*notes, *self._length_notes(splits, evaluation)]

    def _unknown(self, splits: Sequence[TokenizedSplit]) -> list[str]:
        """The share of the characters of a sample that the tokenizer has no token for, where that is much.

        Characters are counted, because one unknown token may stand for a whole sentence.
        """
        tokenizer, texts = self.tokenizer, []
        for split in splits:
            for index in range(0, len(split.examples), max(1, len(split.examples) // SAMPLE)):
                example = split.examples[index]
                texts += [example.source, *([example.target or ""] if self.task.free_text else [])]
        if tokenizer.unk_token_id is None or not getattr(tokenizer, "is_fast", False):
            return []
        encoded: Any = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        lost = 0
        for text, ids, spans in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if tokenizer.unk_token_id in ids:
                pairs = zip(ids, spans, strict=True)
                lost += sum(_signs(text[slice(*span)]) for one, span in pairs if one == tokenizer.unk_token_id)
        share = lost / max(1, sum(map(_signs, texts)))
        what = f"the tokenizer does not know {share:.0%} of the characters of the texts: they are unknown tokens"
        return [what] if share >= UNKNOWN else []

    def _length_notes(self, splits: Sequence[TokenizedSplit], evaluation: EvaluationConfig) -> list[str]:
        total = sum(len(split.examples) for split in splits)
        cut = sum(split.truncated for split in splits)
        notes = [f"{cut} of {total} texts were cut at data.max_length={self.max_length}"] if cut else []
        if "generation" in evaluation.decoding and not self.candidates:
            most = evaluation.max_new_tokens
            targets = (feature["labels"] for split in splits for feature in split if "labels" in feature)
            long = Counter(self._new_tokens(ids) > most for ids in targets)
            if cut := long[True]:
                longer = f"{cut} of {long.total()} targets are longer than evaluation.max_new_tokens={most}"
                notes.append(f"{longer}, so no output can match them")
        return notes

    def _new_tokens(self, ids: Sequence[int]) -> int:
        """How many tokens a model must generate to write a target: the end token may be missing."""
        return len(ids) - (len(ids) > 0 and ids[-1] == self.end)

    def _check_opening(self) -> None:
        for task in self.task.parts.values() or [self.task]:
            opening = next(iter(Formatter().parse(task.config.template)))[0]
            if (count := len(self.tokenizer(opening, verbose=False)["input_ids"])) >= self.max_length:
                raise DataError(
                    f"task.template begins with {count} tokens before its first field, and texts are cut at "
                    f"data.max_length={self.max_length}; raise it, or lower task.shots"
                )

    def _label_ids(self) -> list[list[int]]:
        words: dict[tuple[int, ...], str] = {}
        name, tokenizer = self.task.name, self.tokenizer
        for word in self.task.words:
            content = tokenizer(word, add_special_tokens=False, verbose=False)["input_ids"]
            if all(token == tokenizer.unk_token_id for token in content):
                what = "unknown tokens alone" if content else "nothing"
                raise DataError(f'task "{name}": the tokenizer makes {what} of the label "{word}"; choose another word')
            ids = tuple(self.target(word))
            if ids in words:
                raise DataError(
                    f'task "{name}": the labels "{words[ids]}" and "{word}" have the same token ids {list(ids)}; '
                    "choose words that this tokenizer tells apart"
                )
            words[ids] = word
        return [list(ids) for ids in words]

    def _source_ids(self, texts: list[str]) -> Iterator[tuple[list[int], int]]:
        """Ids of every text, and 1 where it was cut."""
        whole: list[list[int]] = self.tokenizer(texts, verbose=False)["input_ids"] if texts else []
        for text, ids in zip(texts, whole, strict=True):
            if len(ids) <= self.max_length:
                yield ids, 0
            else:  # again, because only the tokenizer knows where its special tokens belong
                yield self.tokenizer(text, truncation=True, max_length=self.max_length, verbose=False)["input_ids"], 1


class Continuation(TextToText):
    """What decoder-only models read: the text, a space and the label word, then the end token.

    The space belongs to the label, as in lm-evaluation-harness (target_delimiter), so that its first token is the one
    that a text has there. The end token, which that program does not score, is part of every label: a trained model
    has to learn where to stop, and one label may begin with another.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """See the base class.

        Raises:
            DataError: As of the base class; or the template ends in a space.
        """
        ends = (one.config.template for one in task.parts.values() or [task])
        if template := next((one for one in ends if one != one.rstrip(" \t")), None):
            raise DataError(
                f"task.template={template!r} ends in a space, but decoder-only models get one before the label; "
                "leave it out"
            )
        super().__init__(task, tokenizer, max_length)

    def target(self, text: str) -> list[int]:
        """See the base class: the tokens that a text gains by a space and the target.

        Raises:
            DataError: The tokenizer joins text before the space to what follows it.
        """
        before, both = (
            self.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"] for words in ("a", f"a {text}")
        )
        if both[: len(before)] != before:
            raise DataError(f'the tokenizer has no border before "{text}" in "a {text}"; choose another word')
        return [*both[len(before) :], *([] if self.end is None else [self.end])]

    def features(self, examples: Sequence[Example], first: int = 0) -> list[dict[str, Any]]:
        """See the base class; an empty source is one token, from which the first label token is predicted.

        A source has no end token, even if the tokenizer adds one: the label continues the text. Continuations are all
        labels, and a target that is none of them, each without its last token, which no model reads; one of no tokens
        where there is neither.
        """
        features, tokenizer = super().features(examples, first), self.tokenizer
        start = self.end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        choices = [ids[:-1] for ids in self.candidates] or [[]]
        for feature in features:
            ids = feature["input_ids"]
            feature["input_ids"] = (ids[:-1] if ids[-1:] == [self.end] else ids) or [start]
            feature["continuations"] = choices
            if "labels" in feature and feature["labels"][:-1] not in choices:  # free text, or cut at the longest length
                feature["continuations"] = [*(choices if self.candidates else []), feature["labels"][:-1]]
        return features


class Classes(TextToText):
    """What models with a classification head read: one text or a pair as their tokenizer joins it; labels are classes.

    A task with ``choices`` has one source for each label: the head scores each, and the scores are the classes'.
    """

    def features(self, examples: Sequence[Example], first: int = 0) -> list[dict[str, Any]]:
        """See the base class; the longer text of a pair is cut first."""
        features: list[dict[str, Any]] = []
        for index, example in enumerate(examples, first):
            parts = [self._source(texts) for texts in example.segments or ((example.source,),)]
            ids = {name: [part[name] for part, _ in parts] for name in READ if name in parts[0][0]}
            feature: dict[str, Any] = ids if self.task.choices else {name: rows[0] for name, rows in ids.items()}
            feature |= {"index": index, "cut": int(any(cut for _, cut in parts))}
            features.append(feature if example.label is None else {**feature, "labels": [example.label]})
        return features

    def _label_ids(self) -> list[list[int]]:
        if self.task.free_text:
            name = self.task.name
            raise DataError(f'task "{name}" has free text, which models with a classification head cannot write')
        return [[index] for index in range(len(self.task.words))]

    def _check_opening(self) -> None:
        """A pair, or choices, are read in place of the template."""

    def _source(self, texts: Sequence[str]) -> tuple[dict[str, list[int]], bool]:
        """What the tokenizer makes of one text or two, and whether it was cut."""
        whole: Any = self.tokenizer(*texts, verbose=False)
        if len(whole["input_ids"]) <= self.max_length:
            return whole, False
        return self.tokenizer(*texts, truncation=True, max_length=self.max_length, verbose=False), True


def _all_equal(values: Iterable[Any]) -> bool:
    """Whether there are two values or more, and all are the same."""
    rest = iter(values)
    first = next(rest, None)
    second = next(rest, None)
    return second is not None and first == second and all(first == value for value in rest)


def _signs(text: str) -> int:
    """Characters that are no space."""
    return sum(map(len, text.split()))
