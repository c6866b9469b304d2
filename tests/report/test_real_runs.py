"""A report of what a training really leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import report as main


@pytest.mark.slow
def test_a_small_sweep(repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment=smoke", "task=rte", "method=multimask,prefix", "seed=1,2", f"run.root={tmp_path / 'runs'}"]
    subprocess.run([sys.executable, "train.py", "-m", *words], cwd=repo, check=True, capture_output=True)
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out), "--baseline", "prefix"]) == 0
    assert capsys.readouterr().out.count("| 2 | 0.531 |") == 2
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in (
        "Masks at cross: multimask, seed 1",
        "Route load: multimask, seed 1",
        "Validation loss over training",
    ):
        assert f"<title>{title}</title>" in page
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    (row,) = [row for row in content["rows"] if row["method"] == "multimask"]
    assert row["paired_seeds"] == 2 and row["paired_examples"] == 32 and row["p_mcnemar"] is not None
    run = content["runs"][0]
    assert run["train_info"]["num_trainable_params"] == run["mmpt"]["result"]["parameters"]["trainable"]
    assert len(run["train_info"]["metrics"]) >= 2 and run["meta_info"]["system_info"]["system"]
