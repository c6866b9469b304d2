"""The overview: methods by tasks in points, its marks, its choice of settings, and its LaTeX compiled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mmpt.report.compare import compare
from mmpt.report.groups import group
from mmpt.report.load import load
from mmpt.report.published import figures
from mmpt.report.tables import Table, as_markdown, full, overview, paper
from tests.report.builder import HOSTILE, write

SCORES = {"rte": {"prefix": 0.7, "smop": 0.8, "lora": 0.6}, "cb": {"prefix": 0.5, "smop": 0.6}}


def made(place: Path, seeds: int = 3) -> Table:
    for task, by_method in SCORES.items():
        for method, score in by_method.items():
            for seed in range(1, seeds + 1):
                write(place, method, seed, score + seed * (1 + (method == "smop") / 10) / 100, task=task)
    rows = group(load([place]).runs)
    compare(rows, "prefix")
    return overview(rows)


def test_points_mean_over_tasks_and_marks(tmp_path: Path) -> None:
    table = made(tmp_path)
    assert [column.heading for column in table.columns][2:] == ["cb (accuracy)", "rte (accuracy)", "mean over tasks"]
    assert as_markdown(table).splitlines()[2:] == [
        "| lora | 100 | – | 62.0 ± 1.0 | – |",
        "| prefix | 100 | <ins>52.0</ins> ± 1.0 | <ins>72.0</ins> ± 1.0 | <ins>62.0</ins> ± 1.0 |",
        r"| smop | 100 | **62.2** ± 1.1 \* | **82.2** ± 1.1 \* | **72.2** ± 1.1 |",
    ]
    assert "over 3 seeds" in table.caption and "* differs from prefix: p < 0.05" in table.caption


def test_one_seed_has_neither_deviation_nor_star(tmp_path: Path) -> None:
    table = made(tmp_path, seeds=1)
    assert not [cell for line in table.lines for cell in line if cell.sd or cell.star]
    assert "over 1 seed;" in table.caption


def test_settings_are_chosen_on_validation(tmp_path: Path) -> None:
    for rate, test, validation in ((0.1, 0.9, 0.5), (0.2, 0.7, 0.8)):
        scores = {"test": {"accuracy": test}, "validation": {"accuracy": validation}, "majority": {"accuracy": 0.5}}
        write(tmp_path, name=f"r{rate}", settings={"method.lr.prefix": rate}, scores=scores)
    table = overview(group(load([tmp_path]).runs))
    assert [line[2].text for line in table.lines] == ["70.0"] and "best validation score" in table.caption


def line(place: Path) -> tuple[list[str], str]:
    """The texts of the only line behind the method and its size, and the caption."""
    table = overview(group(load([place]).runs))
    (cells,) = table.lines
    return [cell.text for cell in cells[2:]], table.caption


def scored(place: Path, task: str, metric: str, score: float, **more: Any) -> None:
    scores = {name: {metric: score} for name in ("test", "validation", "majority")}
    write(place, task=task, metric=metric, scores=scores, **more)


def test_the_mean_is_over_points_by_the_range_of_each_metric(tmp_path: Path) -> None:
    scored(tmp_path, "a", "accuracy", 0.5)
    scored(tmp_path, "b", "matthews", 0.25)
    scored(tmp_path, "c", "own", 0.8, metric_range=[0, 100])  # no share, though it looks like one
    assert line(tmp_path)[0] == ["50.0", "25.0", "0.8", "25.3"]


@pytest.mark.parametrize(
    ("metric", "score", "more"),
    [("accuracy", 31.5, {}), ("own", 12.25, {"metric_range": None}), ("own", 12.25, {"metric_range": [3, 3]})],
)
def test_a_task_on_no_known_range_is_left_out_of_the_mean(
    metric: str, score: float, more: dict[str, Any], tmp_path: Path
) -> None:
    scored(tmp_path, "a", metric, score, **more)
    scored(tmp_path, "b", "accuracy", 0.5)
    scored(tmp_path, "c", "accuracy", 0.7)
    texts, caption = line(tmp_path)
    assert texts == [f"{score:.3f}", "50.0", "70.0", "60.0"]
    assert f"Not in points and not part of the mean, since the metric has no known range: a ({metric})." in caption


def test_what_has_no_score_at_all_leaves_the_mean(tmp_path: Path) -> None:
    write(tmp_path, score=0.5)
    write(tmp_path, score=0.7, task="cb")
    write(tmp_path, task="wic", status={"status": "failed", "error": {"message": "x"}})
    assert line(tmp_path)[0] == ["70.0", "50.0", "failed", "60.0"]
    assert overview(group(load([tmp_path]).runs)).lines[0][1].value == 100  # parameters of those that are done
    damaged = write(tmp_path, name="damaged")
    (damaged / "config.yaml").write_text("{a: [")
    (damaged / "result.json").unlink()
    assert line(tmp_path)[0] == ["70.0", "50.0", "failed", "60.0"]


def test_the_main_p_value_is_named(tmp_path: Path) -> None:
    made(tmp_path)
    rows = group(load([tmp_path]).runs)
    assert "main p value" not in full(rows)
    compare(rows, "prefix")
    assert "p, seeds (main): the main p value." in full(rows) and "p, seeds (main)" in paper(rows)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine (Debian: texlive-latex-base)")
def test_pdflatex_fits_the_tables_into_two_columns(tmp_path: Path) -> None:
    made(tmp_path / "runs")
    for seed, name in enumerate(name for name in HOSTILE if name.isascii()):
        write(tmp_path / "runs", name, seed, task="[x] *" if seed % 2 else "rte", name=f"h{seed}")
    rows = group(load([tmp_path / "runs"]).runs)
    compare(rows, "prefix")
    head = (
        r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}\begin{document}See \ref{tab:mmpt-overview}."
    )
    (tmp_path / "a.tex").write_text(f"{head}\n{paper(rows, figures())}\n\\end{{document}}", encoding="utf-8")
    for _ in range(2):  # the second time the references are known
        call = ["pdflatex", "-no-shell-escape", "-halt-on-error", "-interaction=nonstopmode", "a.tex"]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, timeout=120)
        told = done.stdout.decode("utf-8", "replace")
        assert done.returncode == 0, told[-2000:]
    assert "Overfull" not in told and "undefined" not in told and (tmp_path / "a.pdf").stat().st_size > 10_000
