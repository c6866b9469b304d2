"""Every example of docs/library.md runs, and those that promise to be short are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "library.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_examples_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"docs/library.md, example {number}", "exec"), names)
    assert names["mixed"].shape[0] == 2 and len(EXAMPLES) >= 9


def test_the_loops_are_short() -> None:
    for words in ("loss.backward()", "trainer.train()"):
        (example,) = [text for text in EXAMPLES if words in text]
        code = [line for line in example.splitlines() if line.strip()]
        assert len(code) <= 12, example
