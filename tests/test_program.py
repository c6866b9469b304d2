"""How programs end: an error of ours is one safe line, and nobody who reads is no error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.errors import RunError
from mmpt.program import exit_code

PRINTS = """
import sys
from mmpt.program import exit_code
def work():
    for _ in range(10_000):
        print("x" * 100)
    return 1
sys.exit(exit_code(work))
"""


def test_an_error_is_one_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)

    def work() -> int:
        raise RunError(f"no such run\n\x1b[2J{'k' * 40}")

    assert exit_code(work) == RunError.exit_code
    told = capsys.readouterr().err
    assert told.startswith("error: no such run") and told.count("\n") == 1
    assert "\x1b" not in told and "kkkk" not in told


def test_whoever_reads_may_leave() -> None:
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
