"""How models with a classification head read a task: labels are classes, and a source may be a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmpt.data.collate import Encoded
from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEPT = ("input_ids", "token_type_ids")  # of what a tokenizer gives


class Classes:
    """Sources as ``[CLS] text [SEP] text [SEP]``, or as the tokenizer joins them, and label indices as targets.

    A task with ``choices`` has one source a label: the head scores each, and the scores are the classes'.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Take the labels as classes.

        Args:
            task: The task.
            tokenizer: The backbone's tokenizer.
            max_length: Most tokens of a source.

        Raises:
            DataError: The task has free text.
        """
        if task.free_text:
            raise DataError(f'task "{task.name}" has free text, which models with a classification head can\'t write')
        self.task, self.tokenizer, self.max_length = task, tokenizer, max_length
        self.candidates = [[index] for index in range(len(task.words))]

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Tokenise a split; the longer text of a pair is cut first.

        Args:
            examples: N examples.
        """
        features: list[dict[str, Any]] = []
        truncated = 0
        for example in examples:
            parts = [self._source(texts) for texts in example.segments or ((example.source,),)]
            truncated += any(cut for _, cut in parts)
            found = {name: [ids[name] for ids, _ in parts] for name in KEPT if name in parts[0][0]}
            feature: dict[str, Any] = found if self.task.choices else {name: ids[0] for name, ids in found.items()}
            features.append(feature if example.label is None else {**feature, "labels": [example.label]})
        return Encoded(features, truncated)

    def _source(self, texts: Sequence[str]) -> tuple[dict[str, list[int]], bool]:
        """What the tokenizer makes of one text or two, and whether it was cut."""
        whole: Any = self.tokenizer(*texts, verbose=False)
        if len(whole["input_ids"]) <= self.max_length:
            return whole, False
        return self.tokenizer(*texts, truncation=True, max_length=self.max_length, verbose=False), True
