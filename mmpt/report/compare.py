"""Each row against the baseline method: on the seeds and on the test examples that both have."""

from __future__ import annotations

import functools
import math
import shlex
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mmpt.errors import RunError, nearest
from mmpt.report.details import predictions
from mmpt.report.groups import Comparison, Item, Row, divide, has_shots
from mmpt.report.settings import shown
from mmpt.report.stats import combine, holm, mcnemar, paired_bootstrap, paired_t
from mmpt.utils.untrusted import one_line

Answers = dict[str, tuple[str, str, bool]]  # id -> source, target, whether right


def compare(rows: Sequence[Row], baseline: str) -> None:
    """Fill in ``comparison`` of every row except the baseline's; p values are corrected over all of them.

    Args:
        rows: All rows of the report.
        baseline: A method; where it has several settings, one of them may follow: ``prefix trainer.max_steps=100``.

    Raises:
        RunError: No run is of that method and settings, or all are.
    """
    method, _, words = baseline.partition(" ")
    methods = sorted({row.method for row in rows})
    if method not in methods:
        hint = nearest(method, methods)
        raise RunError(f"--baseline {baseline}: no run of that method{hint}; there are {', '.join(methods)}")
    wanted = [word.partition("=")[::2] for word in shlex.split(words)]
    base = {
        id(row)
        for row in rows
        if row.method == method and all(key in row.flat and shown(row.flat[key]) == value for key, value in wanted)
    }
    if not base or (len(base) == len(rows) > 1):
        several = [row.settings for row in rows if row.method == method and row.settings]
        words = " ".join(f"{key}={value}" for key, value in several[0].items()) if several else ""
        example = f", such as --baseline '{method} {words}'" if several else ""
        raise RunError(f"--baseline {baseline}: {'all' if base else 'no'} rows are of it; name one setting{example}")
    done = [row for row in rows if row.summary is not None]
    others = {id(row): {key: str(value) for key, value in row.flat.items() if key[:7] != "method."} for row in done}
    candidates = divide((row for row in done if id(row) in base), _place)
    answers = functools.lru_cache(maxsize=32)(_answers)  # rows share a baseline
    tests = []
    for row in done:
        if id(row) not in base:
            other = _nearest(row, candidates.get(_place(row), ()), others)
            none = Comparison(baseline, note=f"no finished run of {baseline} on this task and model")
            row.comparison = none if other is None else _against(row, other, answers)
            tests.append(row.comparison)
    by_seed = holm([one.by_seed.p if one.by_seed else None for one in tests])
    by_example = holm([one.by_example.p if one.by_example else None for one in tests])
    exact = holm([one.mcnemar for one in tests])
    for one, *corrected in zip(tests, by_seed, by_example, exact, strict=True):
        one.holm_seed, one.holm_example, one.holm_mcnemar = corrected


def _place(row: Row) -> tuple[str, str, str]:
    return row.task, row.model, row.metric


def _nearest(row: Row, candidates: Iterable[Row], others: Mapping[int, Mapping[str, Any]]) -> Row | None:
    """The candidate whose other settings are nearest; among equals the best on validation, never on test."""
    mine = others[id(row)]

    def rank(candidate: Row) -> tuple[int, float]:
        theirs = others[id(candidate)]
        distance = 0 if mine == theirs else sum(mine.get(key) != theirs.get(key) for key in mine.keys() | theirs.keys())
        return distance, -(candidate.validation or 0.0)

    return min(candidates, key=rank, default=None)


def _against(row: Row, other: Row, answers: Callable[[Path | None], Answers]) -> Comparison:
    """Compare two rows."""
    mine, theirs = ({run.seed: run for run in one.runs if run.seed is not None} for one in (row, other))
    one = Comparison(other.label, tuple(sorted(mine.keys() & theirs.keys())))
    pairs = [(mine[seed], theirs[seed]) for seed in one.seeds]
    if not pairs:
        one.note = "no seed in common"
        return one
    most = row.ends[1] - row.ends[0] if row.ends and row.ends == other.ends else math.inf
    one.by_seed = paired_t([(first.score() or 0.0) - (second.score() or 0.0) for first, second in pairs], most)
    drawn = any(has_shots(run) for pair in pairs for run in pair)  # seeds read the same examples in other texts
    data = [{run.result.data_fingerprint for run in each if run.result is not None} for each in _alike(pairs, drawn)]
    warnings = ["warning: not the same data"] if any(len(each) > 1 for each in data) else []
    try:
        warnings += _on_examples(one, [(answers(a.directory), answers(b.directory)) for a, b in pairs], drawn)
    except ValueError as error:
        warnings.append(one_line(error))
    one.note = "; ".join(warnings)
    return one


def _alike(pairs: Sequence[tuple[Item, Item]], drawn: bool) -> Sequence[Sequence[Item]]:
    """Within which of the pairs texts are the same: within each where shots are drawn by seed, else within all."""
    return pairs if drawn else [list(chain(*pairs))]


def _on_examples(one: Comparison, pairs: Sequence[tuple[Answers, Answers]], drawn: bool) -> list[str]:
    """Fill in bootstrap and McNemar's test over the examples that every run predicted; warns where some are missing.

    Where shots are ``drawn`` by seed, an example's source is that of its seed.
    """
    every_answer, groups = list(chain(*pairs)), _alike(pairs, drawn)

    def same(key: str) -> bool:
        targets = {answers[key][1] for answers in every_answer}
        return len(targets) == 1 and all(len({answers[key][0] for answers in group}) == 1 for group in groups)

    ids = sorted(key for key in set.intersection(*map(set, every_answer)) if same(key))
    if not ids:
        raise ValueError("no test example in common")
    right = [[(mine[key][2], theirs[key][2]) for key in ids] for mine, theirs in pairs]  # by seed and example
    one.examples = len(ids)
    one.by_example = paired_bootstrap([statistics.fmean(a - b for a, b in seeds) for seeds in zip(*right, strict=True)])
    one.mcnemar = combine([mcnemar(each.count((True, False)), each.count((False, True))) for each in right])
    every = max(map(len, every_answer))
    return [f"warning: {len(ids)} of {every} test examples in common"] if len(ids) < every else []


def _answers(directory: Path | None) -> Answers:
    answers: Answers = {}
    for line in predictions(directory):
        if not isinstance(line.get("correct"), bool):
            raise ValueError(f"predictions of {one_line(directory and directory.name)} do not say what is correct")
        answers[str(line.get("id"))] = (str(line.get("source")), str(line.get("target")), line["correct"])
    return answers
