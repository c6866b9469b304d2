"""How programs end: an error of ours is one safe line, and nobody who reads is no error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.cli.program import exit_code
from mmpt.errors import RunError

PRINTS = """
import sys
from mmpt.cli.program import exit_code
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


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ["PASSIVE", "2000"]),
        ({"GOMP_SPINCOUNT": "7"}, ["PASSIVE", "7"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None]),
    ],
)
def test_threads_spin_shortly_unless_the_environment_says_how(given: dict[str, str], wanted: list[str | None]) -> None:
    script = f"import os, sys, mmpt; print([os.environ.get(name) for name in {WAITING}], 'torch' in sys.modules)"
    others = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", script], env=others | given, capture_output=True, text=True)
    assert done.stdout.strip() == f"{wanted} False", done.stderr
