"""Predictions as the servers of GLUE and SuperGLUE take them. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmpt.data.label_map import LabelMap
from mmpt.data.layouts import Rows, multirc
from mmpt.data.metrics.forms import number
from mmpt.data.templates import has_field, look_up
from mmpt.errors import AdapterError, DataError

GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")
GLUE_WORDS = ("mnli", "qnli", "rte")  # tasks whose labels GLUE takes as words
SUPERGLUE: dict[str, tuple[str | int, ...]] = {  # the labels of a submission; the official files mean the same by them
    "boolq": ("false", "true"),
    "cb": ("entailment", "contradiction", "neutral"),
    "copa": (0, 1),
    "multirc": (0, 1),
    "rte": ("entailment", "not_entailment"),
    "wic": ("false", "true"),
    "wsc": ("False", "True"),
}
MULTIRC_IDS = ("idx.paragraph", "idx.question", "idx.answer")
TASKS = {"glue": GLUE, "superglue": tuple(SUPERGLUE)}


def refuse_other_tasks(form: str, task: Mapping[str, Any], run: str) -> None:
    """Refuse a run whose task is none of the benchmark's.

    Raises:
        AdapterError: It is not, its labels are not SuperGLUE's, or the run states no task.
    """
    if "name" not in task:
        raise AdapterError(f"--format {form} needs the directory of a run with a task; {run} is none")
    if task["name"] not in TASKS[form]:
        names = ", ".join(TASKS[form])
        raise AdapterError(f"--format {form}: {run} has task={task['name']}; allowed: {names}; others: --format jsonl")
    if form == "superglue":
        _superglue_labels(task)


def glue_table(task: Mapping[str, Any], predictions: list[dict[str, Any]]) -> str:
    """Predictions as GLUE takes them: numbers of labels, words for the tasks of inference, scores from 0 to 5.

    ``task`` has its name and its labels; there is a prediction for each row of a test file, in its order.
    """
    numbers = {} if task["name"] in GLUE_WORDS else {word: index for index, word in enumerate(task["labels"])}
    texts = [str(row["prediction"]) for row in predictions]
    if "pearson" in task["metric"]:  # STS-B; a text that is no number is no similarity
        texts = [f"{min(max(number(text) or 0.0, 0.0), 5.0):.3f}" for text in texts]
    lines = [f"{index}\t{numbers.get(text, text)}" for index, text in enumerate(texts)]
    return "\n".join(["index\tprediction", *lines, ""])


def superglue_ids(name: str, rows: Rows) -> list[tuple[int, ...]]:
    """The official numbers of each example: its ``idx``; of MultiRC those of paragraph, question and answer.

    Raises:
        DataError: A number is missing, or two examples have the same.
    """
    rows = list(rows)
    if name == "multirc":
        list(multirc(rows))  # the errors of its layout; it numbers what has no idx, which a server would misread
    ids: dict[tuple[int, ...], str] = {}
    for where, row in rows:
        if name != "multirc":
            found: list[tuple[Any, ...]] = [(row.get("idx"),)]
        elif isinstance(passage := row.get("passage"), Mapping):
            questions = passage["questions"]
            found = [(row.get("idx"), one.get("idx"), each.get("idx")) for one in questions for each in one["answers"]]
        else:
            found = [tuple(look_up(row, key, where) if has_field(row, key) else None for key in MULTIRC_IDS)]
        for parts in found:
            if not all(str(part).isdecimal() for part in parts):  # text in csv
                names = ", ".join(MULTIRC_IDS) if name == "multirc" else "idx"
                raise DataError(
                    f"{where}: no whole number in {names}; --format superglue needs those of the official file"
                )
            key = tuple(map(int, parts))
            if key in ids:
                raise DataError(f"{where}: idx {'-'.join(map(str, key))} is that of {ids[key]} too; give each row once")
            ids[key] = where
    return list(ids)


def superglue_lines(
    task: Mapping[str, Any], ids: Sequence[tuple[int, ...]], predictions: Sequence[Mapping[str, Any]]
) -> str:
    """Predictions as SuperGLUE takes them: a JSON object a line, of MultiRC one for each paragraph.

    Raises:
        DataError: A prediction is no label of the task.
    """
    from mmpt.data.metrics import label_indices  # numpy: only once there are predictions

    words, labels = list(task["labels"]), _superglue_labels(task)
    rows = []
    indices = label_indices(words, [str(row["prediction"]) for row in predictions])
    for key, index, row in zip(ids, indices.tolist(), predictions, strict=True):
        if index < 0:
            raise DataError(
                f"idx {'-'.join(map(str, key))}: the prediction {row['prediction']!r} is no label, and SuperGLUE takes "
                f"labels alone: {', '.join(words)}; train with evaluation.decoding=[ranking]"
            )
        rows.append((key, labels[index]))
    flat = [{"idx": key[0], "label": label} for key, label in rows]
    lines = _paragraphs(rows) if task["name"] == "multirc" else flat
    return "".join(json.dumps(line) + "\n" for line in lines)


def _superglue_labels(task: Mapping[str, Any]) -> dict[int | None, str | int]:
    """SuperGLUE's label for each label of the task, by the raw values that mean it."""
    allowed, labels = SUPERGLUE[task["name"]], LabelMap(task["labels"])
    found = {labels.find(label): label for label in allowed}
    if None in found or len(found) != len(labels.words):
        names = ", ".join(map(str, allowed))
        raise AdapterError(f"the run's task.labels are not SuperGLUE's ({names}); train with those of conf/task")
    return found


def _paragraphs(rows: Sequence[tuple[tuple[int, ...], str | int]]) -> list[dict[str, Any]]:
    """The nested layout of MultiRC, in the order of the file."""
    nested: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for (paragraph, question, answer), label in rows:
        nested.setdefault(paragraph, {}).setdefault(question, []).append({"idx": answer, "label": label})
    return [
        {"idx": paragraph, "passage": {"questions": [{"idx": key, "answers": each} for key, each in questions.items()]}}
        for paragraph, questions in nested.items()
    ]
