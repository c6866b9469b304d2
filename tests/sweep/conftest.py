"""Sweeps of seconds: few steps on the bundled data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FEW = ["experiment=smoke", "trainer.max_steps=6", "trainer.logging_steps=2", "data.limit_train=48"]


def command(root: Path, *words: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), "-m", *FEW, f"run.root={root}", *words]


def sweep(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A sweep in a process of its own."""
    return subprocess.run(
        command(root, *words),
        capture_output=True,
        text=True,
        check=False,
        cwd=root.parent,
        env={**os.environ, **environment},
    )


def lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("trial")]


def table(output: str) -> list[str]:
    """The final table: the same whatever happened on the way."""
    return [line for line in output.splitlines() if line.startswith("|")]


def outcome(directory: Path) -> dict[str, Any]:
    """All that a run found, without times and memory."""
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {
        "result": {key: value for key, value in result.items() if key not in ("timing", "memory")},
        "metrics": [
            {key: value for key, value in line.items() if key not in ("time", "train/step_ms")} for line in metrics
        ],
        "adapter": (directory / "adapter" / "adapter.safetensors").read_bytes(),
        "predictions": (directory / "predictions.jsonl").read_bytes(),
    }


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
