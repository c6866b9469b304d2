"""``python -m mmpt.report``: the short table, the files, what isn't done, and the exit code."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import report as main
from tests.report.builder import HOSTILE, write

Capture = pytest.CaptureFixture[str]


def test_seeds_are_averaged_and_the_best_is_bold(tmp_path: Path, capsys: Capture) -> None:
    for seed, score in ((1, 0.7), (2, 0.8), (3, 0.9)):
        write(tmp_path / "runs", "prefix", seed, score)
        write(tmp_path / "runs", "smop", seed, 0.6)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "all.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "| prefix | 100 | **0.800** ± 0.100 | 3 | 0.530 | 10.0 | 5 |" in told
    assert "| smop | 100 | 0.600 ± 0.000 | 3 |" in told
    assert "settings" not in told and "notes" not in told and "model" not in told
    assert main([str(tmp_path / "all.jsonl")]) == 0
    assert capsys.readouterr().out == told


def test_a_file_of_results_groups_as_its_directories_do(tmp_path: Path, capsys: Capture) -> None:
    for rate in (0.05, 0.5):
        write(tmp_path / "runs", score=rate, name=f"r{rate}", settings={"method.lr.prefix": rate})
    main([str(tmp_path / "runs"), "--out", str(tmp_path / "all.jsonl")])
    told = capsys.readouterr().out
    assert "| method.lr.prefix=0.5 |" in told
    main([str(tmp_path / "all.jsonl")])
    assert capsys.readouterr().out == told


def test_a_failed_run_is_named(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path, seed=1)
    write(tmp_path, seed=2, status={"status": "failed", "error": {"message": "loss is nan"}})
    assert main([str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "**0.700**" in told.out and "| seed 2 failed loss is nan |" in told.out
    assert told.err == "not done: rte-prefix-2: failed loss is nan\n"


@pytest.mark.parametrize("formats", ["", "docx", "md,htm"])
def test_formats_are_checked_first(formats: str, tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--formats", formats]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: --formats") and "allowed are md, tex" in told and told.count("\n") == 1


def test_formats_need_a_folder(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "runs")
    assert main([str(tmp_path / "runs"), "--formats", "md"]) == 2
    assert "give --out DIR" in capsys.readouterr().err


def test_published_figures_without_a_folder(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "runs")
    assert main([str(tmp_path / "runs"), "--published"]) == 0
    told = capsys.readouterr().out
    assert "Published figures, not run here" in told and "| DePT † | 0.791 |" in told and "boolq" not in told


def test_nothing_to_report_is_2(tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tmp_path), str(tmp_path / "gone"), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "holds no run" in told and "does not exist" in told and "no finished run" in told
    assert not (tmp_path / "out").exists()


def test_only_failures_are_still_shown(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "runs", status={"status": "failed", "error": {"message": "out of memory"}})
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    assert "out of memory" in capsys.readouterr().out
    assert "out of memory" in (tmp_path / "out" / "report.html").read_text()
    assert "out of memory" in (tmp_path / "out" / "report.tex").read_text()


def test_an_empty_place_beside_runs_is_1(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "runs"), str(tmp_path / "empty")]) == 1
    assert "**0.700**" in capsys.readouterr().out


def test_a_place_to_write_that_is_a_file(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "runs")
    (tmp_path / "file").write_text("x")
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "file")]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_every_format_is_written_and_says_the_same(tmp_path: Path, capsys: Capture) -> None:
    import pyarrow.parquet as parquet

    for seed in (1, 2):
        write(tmp_path / "runs", "prefix", seed, 0.5 + seed / 10, answers=[True, False])
        write(tmp_path / "runs", "smop", seed, 0.5, answers=[False, False])
    write(tmp_path / "runs", "smop", 3, status={"status": "interrupted"})
    out = tmp_path / "out"
    formats = "md,tex,csv,parquet,json,html,jsonl,peft"
    call = [str(tmp_path / "runs"), "--out", str(out), "--baseline", "smop", "--published", "--formats", formats]
    assert main(call) == 1
    names = {"report.md", "report.tex", "report.csv", "report.parquet", "report.json", "report.html", "results.jsonl"}
    assert {path.name for path in out.iterdir()} == names | {"method_comparison"}
    records = list(csv.DictReader((out / "report.csv").open(newline="")))
    columns = parquet.read_table(out / "report.parquet").to_pylist()
    content = json.loads((out / "report.json").read_text())
    assert len(records) == len(columns) and records[0]["method"] == columns[0]["method"] == "prefix"
    assert float(records[0]["mean"]) == columns[0]["mean"] == content["rows"][0]["mean"] == pytest.approx(0.65)
    assert content["rows"][0]["scores"] == {"1": 0.6, "2": 0.7}
    assert content["problems"] == ["rte-smop-3: interrupted"] and columns[1]["not_counted"] == 1
    published = [row for row in columns if row["source"] != "runs"]
    assert published and all(row["source"].startswith("published: ") and row["notes"] for row in published)
    assert len((out / "results.jsonl").read_text().splitlines()) == 4
    assert len(list((out / "method_comparison").iterdir())) == 5
    assert "**0.650** ± 0.071" in (out / "report.md").read_text()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str, tmp_path: Path, capsys: Capture) -> None:
    extra = {"method.num_virtual_tokens": name}
    write(tmp_path / "runs", name, 1, task=name, name="a", settings=extra, answers=[True])
    write(tmp_path / "runs", name, 2, task=name, name="b", status={"status": "failed", "error": {"message": name}})
    write(tmp_path / "runs", "other", 1, task=name, name="c", answers=[True])
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--baseline", "other"]) == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<script") == 2 and page.count("</script>") == 2 and "<img" not in page
    latex = (tmp_path / "out" / "report.tex").read_text()
    assert "\\input" not in latex and "<script" not in latex
    text = (tmp_path / "out" / "report.md").read_text() + capsys.readouterr().out
    assert "<script" not in text and "<img" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} <= {
        len(head.split("|")) - 1 for head in table if "---" in head
    }
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open(newline="")))
    assert all(not row["task"].startswith("=") for row in rows)
    assert name in json.loads((tmp_path / "out" / "report.json").read_text())["rows"][0]["task"]


def test_half_a_surrogate_pair_is_written(tmp_path: Path, capsys: Capture) -> None:
    directory = write(tmp_path / "runs", versions={"torch": "\ud800"})
    content = json.loads((directory / "result.json").read_text())
    (directory / "result.json").write_text(json.dumps({**content, "task": "a\ud800b", "metric": "accuracy"}))
    formats = "md,tex,csv,parquet,json,html,jsonl,peft"
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--formats", formats]) == 0
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "all.jsonl")]) == 0
    assert "| a b (accuracy) |" in capsys.readouterr().out
    for path in (tmp_path / "out").rglob("report.*"):
        if path.suffix != ".parquet":
            path.read_text(encoding="utf-8")


def test_importing_is_light() -> None:
    heavy = ("torch", "matplotlib", "transformers", "scipy")
    code = f"import sys, mmpt.report; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_collect_and_table_for_other_parts(tmp_path: Path) -> None:
    from mmpt.errors import RunError
    from mmpt.report import collect, table

    write(tmp_path / "runs", "prefix", 1, 0.7)
    write(tmp_path / "runs", "smop", 1, 0.9)
    write(tmp_path / "runs", "smop", 2, status={"status": "failed", "error": {"message": "x"}})
    results, unfinished = collect([tmp_path / "runs"])
    assert len(results) == 2 and unfinished == ["rte-smop-2: failed x"]
    assert "**0.900**" in table(results)
    with pytest.raises(RunError, match="does not exist"):
        collect([tmp_path / "runs" / "rte-prefix-1" / "none"])
