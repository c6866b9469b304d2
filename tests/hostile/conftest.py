"""Tells how many cases were tried."""

from __future__ import annotations

import pytest

from tests.hostile.cases import ran


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ran:
        parts = ", ".join(f"{name.removeprefix('test_')} {count}" for name, count in sorted(ran.items()))
        terminalreporter.write_line(f"generated cases: {sum(ran.values())} ({parts})")
