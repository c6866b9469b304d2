"""docs/methods.md is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpt.methods import names
from tools.methods_page import main

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_committed_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8"), "run: make docs"
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"\n## {name}\n" in text and f"| [{name}](#{name}) |" in text for name in names())
