"""Comparisons on the same seeds and examples, against numbers worked out by hand or by SciPy."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats as scipy_stats

from mmpt.errors import RunError
from mmpt.report.columns import interval, versus
from mmpt.report.compare import compare
from mmpt.report.groups import Comparison, Row, group
from mmpt.report.load import load
from tests.report.builder import write

RIGHT = [True] * 30 + [False] * 10
WORSE = [True] * 15 + [False] * 25


def compared(place: Path, baseline: str = "prefix") -> dict[str, Row]:
    rows = group(load([place]).runs)
    compare(rows, baseline)
    return {row.label: row for row in rows}


def against(row: Row) -> Comparison:
    assert row.comparison is not None
    return row.comparison


def test_seeds_and_examples_are_paired(tmp_path: Path) -> None:
    for seed, score in ((1, 0.75), (2, 0.70), (3, 0.74)):
        write(tmp_path, "smop", seed=seed, score=score, answers=RIGHT)
        write(tmp_path, "prefix", seed=seed, score=score - 0.1 - seed / 100, answers=WORSE)
    write(tmp_path, "smop", seed=4, score=0.1, answers=WORSE)  # the baseline lacks this seed
    one = against(compared(tmp_path)["smop"])
    assert one.seeds == (1, 2, 3) and one.examples == 40 and one.by_seed and one.by_example
    expected = scipy_stats.ttest_1samp([0.11, 0.12, 0.13], 0)
    assert one.by_seed.difference == pytest.approx(0.12) and one.by_seed.p == pytest.approx(expected.pvalue)
    assert one.by_example.difference == pytest.approx(15 / 40)
    assert one.mcnemar == pytest.approx(2 * scipy_stats.binomtest(0, 15).pvalue)  # of three seeds: twice the mean
    assert one.holm_mcnemar == one.mcnemar and not one.note


def test_the_difference_shown_is_that_of_the_metric(tmp_path: Path) -> None:
    """Below three seeds its interval is that over examples, where both are about the share of right answers."""
    write(tmp_path, "prefix", score=15 / 40, answers=WORSE)
    write(tmp_path, "smop", score=30 / 40, answers=RIGHT)
    write(tmp_path, "lora", score=0.5, answers=RIGHT)  # as an F1 would have it
    rows = compared(tmp_path)
    found = against(rows["smop"]).by_example
    assert found and versus(rows["smop"]) == f"+0.375 {interval(found)}" and versus(rows["lora"]) == "+0.125"


def test_p_values_are_corrected_over_all_comparisons(tmp_path: Path) -> None:
    write(tmp_path, "prefix", answers=WORSE)
    for method in ("smop", "lora", "prompt"):
        write(tmp_path, method, answers=RIGHT)
    rows = compared(tmp_path)
    for method in ("smop", "lora", "prompt"):
        one = against(rows[method])
        assert one.mcnemar is not None and one.holm_mcnemar == pytest.approx(3 * one.mcnemar)
    assert rows["prefix"].comparison is None


def test_only_common_examples_count(tmp_path: Path) -> None:
    write(tmp_path, "prefix", answers=WORSE)
    write(tmp_path, "smop", answers=RIGHT[:25])
    one = against(compared(tmp_path)["smop"])
    assert one.examples == 25 and one.note == "warning: 25 of 40 test examples in common"


def test_other_data_are_told(tmp_path: Path) -> None:
    write(tmp_path, "prefix", answers=WORSE)
    write(tmp_path, "smop", answers=RIGHT, data_fingerprint="x")
    assert "warning: not the same data" in against(compared(tmp_path)["smop"]).note


def test_nothing_to_pair(tmp_path: Path) -> None:
    write(tmp_path, "prefix", seed=1)
    write(tmp_path, "smop", seed=2)
    write(tmp_path, "smop", seed=1, task="wic")
    notes = {(row.task, row.method): row.comparison for row in compared_rows(tmp_path)}
    assert against_note(notes["rte", "smop"]) == "no seed in common"
    assert against_note(notes["wic", "smop"]) == "no finished run of prefix on this task and model"


def compared_rows(place: Path) -> list[Row]:
    rows = group(load([place]).runs)
    compare(rows, "prefix")
    return rows


def against_note(one: Comparison | None) -> str:
    assert one is not None
    return one.note


@pytest.mark.parametrize("content", [None, '{"id": "1"}\n', "[1]\n", '{"id"\n{"id"\n'])
def test_predictions_that_cannot_be_read_leave_the_scores(content: str | None, tmp_path: Path) -> None:
    write(tmp_path, "prefix", score=0.5, answers=WORSE)
    hurt = write(tmp_path, "smop", score=0.75, answers=RIGHT)
    (hurt / "predictions.jsonl").unlink()
    if content is not None:
        (hurt / "predictions.jsonl").write_text(content)
    one = against(compared(tmp_path)["smop"])
    assert one.by_seed and one.by_seed.difference == 0.25 and one.by_example is None
    assert "predictions of rte-smop-1" in one.note and "\n" not in one.note


def test_the_baseline_has_the_nearest_settings_and_is_chosen_on_validation(tmp_path: Path) -> None:
    def scores(test: float, validation: float) -> dict[str, dict[str, float]]:
        return {"test": {"accuracy": test}, "validation": {"accuracy": validation}, "majority": {"accuracy": 0.5}}

    far = {"trainer.max_steps": 40}
    write(tmp_path, "smop", score=0.8)
    write(tmp_path, "prefix", name="far", settings=far, scores=scores(0.9, 0.99))
    write(tmp_path, "prefix", name="best test", settings={"method.lr.prefix": 0.5}, scores=scores(0.7, 0.5))
    write(tmp_path, "prefix", name="chosen", settings={"method.lr.prefix": 0.1}, scores=scores(0.6, 0.8))
    rows = compared(tmp_path)
    one = next(against(row) for row in rows.values() if row.method == "smop")
    assert one.by_seed and one.by_seed.difference == pytest.approx(0.2)
    assert "lr.prefix=0.1" in one.baseline


def test_an_unknown_baseline_is_named(tmp_path: Path) -> None:
    write(tmp_path, "prefix")
    with pytest.raises(RunError, match=r'--baseline prefx: .*did you mean "prefix".*there are prefix'):
        compare(group(load([tmp_path]).runs), "prefx")


def test_settings_of_one_method_are_compared(tmp_path: Path) -> None:
    for rate, answers in ((0.1, WORSE), (0.5, RIGHT)):
        for seed in (1, 2):
            settings = {"method.lr": {"prefix": rate}}
            score = sum(answers) / 40 + seed / 100 * rate
            write(tmp_path, seed=seed, score=score, answers=answers, settings=settings, name=f"{rate}-{seed}")
    with pytest.raises(RunError, match=r"--baseline prefix: all rows are of it; name one setting, such as --baseline"):
        compared(tmp_path)
    with pytest.raises(
        RunError, match=r"no rows are of it; name one setting, such as --baseline 'prefix method.lr.prefix=0"
    ):
        compared(tmp_path, "prefix method.lr.prefix=7")
    rows = compared(tmp_path, "prefix method.lr.prefix=0.1")
    assert rows["prefix lr.prefix=0.1"].comparison is None
    one = against(rows["prefix lr.prefix=0.5"])
    assert one.seeds == (1, 2) and one.examples == 40 and one.by_example is not None
    assert one.by_example.difference == pytest.approx(15 / 40)


def test_shots_are_compared_by_example_although_each_seed_draws_its_own(tmp_path: Path) -> None:
    for method, answers in (("prefix", WORSE), ("ia3", RIGHT)):
        for seed in (1, 2):
            more = {"settings": {"task.shots": 2}, "data_fingerprint": str(seed), "answers": answers}
            path = write(tmp_path, method, seed=seed, **more) / "predictions.jsonl"
            text = path.read_text(encoding="utf-8").replace('"source": "', f'"source": "shots of {seed} ')
            path.write_text(text, encoding="utf-8")
    one = against(compared(tmp_path)["ia3"])
    assert one.examples == 40 and one.mcnemar is not None and not one.note
