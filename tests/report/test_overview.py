"""The overview: methods by tasks in points, its marks, its choice of settings, and its LaTeX compiled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

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


def test_a_score_beyond_one_is_no_share(tmp_path: Path) -> None:
    write(tmp_path, score=31.5)
    write(tmp_path, score=0.5, task="cb")
    assert [cell.text for cell in overview(group(load([tmp_path]).runs)).lines[0][2:]] == ["50.0", "31.5", "40.8"]


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
