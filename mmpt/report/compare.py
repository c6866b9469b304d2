"""Each row against the baseline method: on the seeds and on the test examples that both have."""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmpt.errors import RunError, nearest
from mmpt.report.groups import Comparison, Row
from mmpt.report.settings import flatten
from mmpt.report.stats import combine, holm, mcnemar, paired_bootstrap, paired_t
from mmpt.utils.files import read_jsonl
from mmpt.utils.untrusted import one_line

Answers = dict[str, tuple[str, bool]]  # id -> source and target, whether right


def compare(rows: Sequence[Row], baseline: str) -> None:
    """Fill in ``comparison`` of every row except the baseline's; p values are corrected over all of them.

    Args:
        rows: All rows of the report.
        baseline: A method.

    Raises:
        RunError: No run is of that method.
    """
    methods = sorted({row.method for row in rows})
    if baseline not in methods:
        hint = nearest(baseline, methods)
        raise RunError(f"--baseline {baseline}: no run of that method{hint}; there are {', '.join(methods)}")
    candidates: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.method == baseline and row.summary is not None:
            candidates[row.task, row.model, row.metric].append(row)
    settings = {id(row): _other_settings(row) for row in rows}
    answers = functools.lru_cache(maxsize=32)(_answers)  # rows share a baseline
    for row in rows:
        if row.method == baseline or row.summary is None:
            continue
        other = _nearest(row, candidates[row.task, row.model, row.metric], settings)
        if other is None:
            row.comparison = Comparison(baseline, (), note=f"no finished run of {baseline} on this task and model")
        else:
            row.comparison = _against(row, other, answers)
    _correct(rows)


def _nearest(row: Row, candidates: Sequence[Row], settings: Mapping[int, Mapping[str, str]]) -> Row | None:
    """The candidate whose other settings are nearest; among equals the best on validation, never on test."""
    mine = settings[id(row)]

    def rank(candidate: Row) -> tuple[int, float]:
        theirs, validation = settings[id(candidate)], candidate.values(lambda run: run.score("validation"))
        distance = 0 if mine == theirs else sum(mine.get(key) != theirs.get(key) for key in mine.keys() | theirs.keys())
        return distance, -statistics.fmean(validation) if validation else 0.0

    return min(candidates, key=rank, default=None)


def _other_settings(row: Row) -> dict[str, str]:
    settings = row.runs[0].settings if row.runs else None
    if settings is None:
        return {}
    others = {key: value for key, value in settings.values.items() if key != "method"}
    return {key: str(value) for key, value in flatten(others).items()}


def _against(row: Row, other: Row, answers: Callable[[str, Path | None], Answers]) -> Comparison:
    """Compare two rows."""
    mine, theirs = ({run.seed: run for run in one.runs if run.seed is not None} for one in (row, other))
    seeds = tuple(sorted(mine.keys() & theirs.keys()))
    comparison = Comparison(other.label, seeds)
    if not seeds:
        return replace(comparison, note="no seed in common")
    runs = [run for seed in seeds for run in (mine[seed], theirs[seed])]
    data = {run.result.data_fingerprint for run in runs if run.result is not None}
    warning = "warning: not the same data" if len(data) > 1 else ""
    differences = [(mine[seed].score() or 0.0) - (theirs[seed].score() or 0.0) for seed in seeds]
    comparison = replace(comparison, by_seed=paired_t(differences), note=warning)
    try:
        pairs = [(answers(*mine[seed].location), answers(*theirs[seed].location)) for seed in seeds]
        return _on_examples(comparison, pairs)
    except ValueError as error:
        return replace(comparison, note="; ".join(filter(None, [warning, one_line(error)])))


def _on_examples(comparison: Comparison, pairs: Sequence[tuple[Answers, Answers]]) -> Comparison:
    """Bootstrap and McNemar's test over the examples that every run predicted."""
    ids = sorted(set.intersection(*(set(one) for pair in pairs for one in pair)))
    ids = [key for key in ids if len({one[key][0] for pair in pairs for one in pair}) == 1]
    if not ids:
        raise ValueError("no test example in common")
    every = max(len(one) for pair in pairs for one in pair)
    note = [comparison.note] if comparison.note else []
    if len(ids) < every:
        note.append(f"warning: {len(ids)} of {every} test examples in common")
    differences = [statistics.fmean(mine[key][1] - theirs[key][1] for mine, theirs in pairs) for key in ids]
    p_values = [
        mcnemar(
            sum(mine[key][1] and not theirs[key][1] for key in ids),
            sum(theirs[key][1] and not mine[key][1] for key in ids),
        )
        for mine, theirs in pairs
    ]
    return replace(
        comparison,
        examples=len(ids),
        by_example=paired_bootstrap(differences),
        mcnemar=combine(p_values),
        note="; ".join(note),
    )


def _correct(rows: Sequence[Row]) -> None:
    """Holm's correction, for each of the three tests over all comparisons of the report."""
    compared = [row for row in rows if row.comparison is not None]
    tests = [row.comparison for row in compared if row.comparison is not None]
    by_seed = holm([one.by_seed.p if one.by_seed else None for one in tests])
    by_example = holm([one.by_example.p if one.by_example else None for one in tests])
    exact = holm([one.mcnemar for one in tests])
    for row, one, seed, example, mc in zip(compared, tests, by_seed, by_example, exact, strict=True):
        row.comparison = replace(one, holm_seed=seed, holm_example=example, holm_mcnemar=mc)


def _answers(name: str, directory: Path | None) -> Answers:
    """Read a run's test answers; a ValueError says in one line why there are none."""
    if directory is None:
        raise ValueError("no predictions, since the run directories are not given")
    answers: Answers = {}
    try:
        for row in read_jsonl(directory / "predictions.jsonl"):
            if not isinstance(row.get("correct"), bool):
                raise ValueError(f"predictions of {name} do not say what is correct")
            answers[str(row.get("id"))] = (f"{row.get('source')}\0{row.get('target')}", row["correct"])
    except (OSError, RunError) as error:
        raise ValueError(f"predictions of {name} cannot be read ({getattr(error, 'strerror', error)})") from error
    return answers
