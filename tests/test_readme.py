"""The README's examples, run as they stand."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gemma_compare

ROOT = Path(__file__).resolve().parents[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)


def test_own_data_from_nothing_to_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shell,), (python,) = blocks("bash"), blocks("python")
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "runs/kinds/result.json").read_text())
    assert result["data"]["bundled"] is False
    assert result["scores"]["test"]["accuracy"] >= 0.75 > result["scores"]["majority"]["accuracy"]
    predicted = json.loads(done.stdout.strip().splitlines()[-1])
    assert predicted["prediction"] == "animal"
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(python, names)
    assert "'prediction': 'animal'" in capsys.readouterr().out
    trained = {name for name, parameter in names["model"].named_parameters() if parameter.grad is not None}
    assert trained and trained == {name for name, p in names["model"].named_parameters() if p.requires_grad}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_table_is_what_the_committed_sweep_gives() -> None:
    from mmpt.report import collect, table

    results, unfinished = collect([ROOT / "sweeps" / "bundled.jsonl"])
    assert not unfinished and len(results) == 54
    assert table(results) in (ROOT / "docs/comparison.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/comparison.md"])
def test_the_scores_on_gemma_are_those_of_the_committed_results(page: str) -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (ROOT / page).read_text("utf-8").splitlines()]
    for method in ("prefix", "lora", "multimask"):
        found = list(gemma_compare.scores("cb", method).values())
        trained = next(one.result() for one in gemma_compare.trials("cb", method))["parameters"]["trainable"]
        score = f"{statistics.fmean(found):.1f} ± {statistics.stdev(found):.1f}"
        assert any(
            row[0].split(",")[0] == method and row[1] == f"{trained:,}" and score in row for row in rows if len(row) > 2
        ), (method, score)
