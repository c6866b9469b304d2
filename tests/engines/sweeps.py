"""Sweeps of seconds, started as a user starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.engines.machines import ROOT, wait_for

TRIAL = ["experiment=smoke", "method=prefix"]
SHORT = [*TRIAL, "trainer.max_steps=6", "data.limit_train=48"]
EVAL_STEPS = 150
LONG = [*TRIAL, "trainer.max_steps=900", "trainer.eval_strategy=steps", f"trainer.eval_steps={EVAL_STEPS}"]


def start_sweep(root: Path, *words: str) -> subprocess.Popen[str]:
    """Start a sweep whose run directories lie in ``root``."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, f"run.root={root}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], exit_code: int = 0) -> str:
    """Wait for a sweep's end; all that it printed."""
    output, errors = process.communicate()
    assert process.returncode == exit_code, output + errors
    return output + errors


def run_sweep(root: Path, *words: str, exit_code: int = 0) -> str:
    """A whole sweep; all that it printed."""
    return finish(start_sweep(root, *words), exit_code)


def wait_until_in_the_middle(root: Path, process: subprocess.Popen[str], trials: int) -> None:
    """Wait until so many trials have written a checkpoint."""

    def ready() -> bool:
        assert process.poll() is None, finish(process)
        return len({path.parents[1] for path in root.glob("rte-*/checkpoints/*")}) >= trials

    wait_for(f"{trials} checkpoints", ready, 120)


def trial_lines(output: str) -> dict[int, str]:
    """Number of each trial that ended well -> its line."""
    lines = [line for line in output.splitlines() if line.startswith("trial ")]
    return {int(line.split()[1].split("/")[0]): line for line in lines}


def outcomes(root: Path) -> dict[str, Any]:
    """Run directory -> all that the run computed, without times and memory."""
    return {path.parent.name: _outcome(path.parent) for path in _results(root)}


def _results(root: Path) -> Iterable[Path]:
    return sorted(root.glob("rte-*/result.json"))


def _outcome(directory: Path) -> dict[str, Any]:
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    return {
        "result": {key: value for key, value in result.items() if key not in ("timing", "memory")},
        "adapter": (directory / "adapter" / "adapter.safetensors").read_bytes(),
        "predictions": (directory / "predictions.jsonl").read_bytes(),
    }
