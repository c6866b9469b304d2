"""With MMPT_CI=1, a skipped test fails unless its reason begins as a line of allowed_skips.txt does."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest

ALLOWED_FILE = Path(__file__).with_name("allowed_skips.txt")
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _allowed() -> tuple[str, ...]:
    lines = (line.strip() for line in ALLOWED_FILE.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _forbid(report: Report) -> Report:
    if os.environ.get("MMPT_CI") == "1" and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(_allowed()):
            report.outcome = "failed"
            report.longrepr = f"skipped for a reason that {ALLOWED_FILE.name} does not list: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips itself or is skipped by a mark."""
    return _forbid((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that skips itself as a whole."""
    return _forbid((yield))
