"""Official layouts that are not one flat example a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mmpt.errors import DataError

Rows = Iterable[tuple[str, Mapping[str, Any]]]


def multirc(rows: Rows) -> Iterator[tuple[str, dict[str, Any]]]:
    """One row an answer, from the nested official layout; rows that are flat already (the hub's) pass.

    Args:
        rows: Where and row; nested: ``passage.text``, ``passage.questions[].answers[]``.

    Yields:
        Rows with ``paragraph``, ``question``, ``answer``, ``label`` (where there is one) and
        ``idx.paragraph``, ``idx.question``, ``idx.answer``.

    Raises:
        DataError: A nested field is missing.
    """
    for where, row in rows:
        passage = row.get("passage")
        if not isinstance(passage, Mapping):
            yield where, dict(row)
            continue
        try:
            yield from _answers(row, passage, where)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{where}: not the official MultiRC layout ({type(error).__name__}: {error}); "
                "expected passage.text and passage.questions[].answers[].text"
            ) from error


def _answers(row: Mapping[str, Any], passage: Mapping[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for question_number, question in enumerate(passage["questions"]):
        for answer_number, answer in enumerate(question["answers"]):
            flat = {
                "paragraph": passage["text"],
                "question": question["question"],
                "answer": answer["text"],
                "idx": {
                    "paragraph": row.get("idx", where),
                    # Official question numbers run through the whole file; own data may number within a passage.
                    "question": question.get("idx", f"{row.get('idx', where)}.{question_number}"),
                    "answer": answer.get("idx", answer_number),
                },
            }
            if "label" in answer:
                flat["label"] = answer["label"]
            yield f"{where} question {question_number + 1} answer {answer_number + 1}", flat


def wsc(rows: Rows) -> Iterator[tuple[str, dict[str, Any]]]:
    """The official WSC layout keeps its spans in ``target``; the hub's rows are flat and are nested here.

    Args:
        rows: Where and row.

    Yields:
        Rows with ``target.span1_text`` and ``target.span2_text``.
    """
    spans = ("span1_text", "span2_text", "span1_index", "span2_index")
    for where, row in rows:
        if "target" in row:
            yield where, dict(row)
        else:
            target = {name: row[name] for name in spans if name in row}
            yield where, {**{name: value for name, value in row.items() if name not in spans}, "target": target}


LAYOUTS: dict[str, Callable[[Rows], Iterator[tuple[str, dict[str, Any]]]]] = {"multirc": multirc, "wsc": wsc}
