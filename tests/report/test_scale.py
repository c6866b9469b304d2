"""Many runs: the report stays fast and small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import make_runs, measure

RUNS = 1000


@pytest.mark.slow
def test_a_thousand_runs(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs", RUNS)
    table = measure(tmp_path / "runs", [])
    assert table["cpu_seconds"] < 20 and table["peak_mb"] < 300  # 10,000 runs have 20 s and 1 GB
    whole = measure(tmp_path / "runs", ["--out", str(tmp_path / "out"), "--baseline", "prefix"])
    assert whole["cpu_seconds"] < 60 and whole["peak_mb"] < 600
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {
        ".md",
        ".tex",
        ".csv",
        ".parquet",
        ".json",
        ".html",
    }
