"""In CI a test is skipped only for a reason that allowed_skips.txt lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = {
    "by itself": "import pytest\ndef test_it():\n    pytest.skip({reason!r})\n",
    "by a mark": "import pytest\n@pytest.mark.skipif(True, reason={reason!r})\ndef test_it():\n    pass\n",
    "as a file": "import pytest\npytest.importorskip('no_such_package', reason={reason!r})\n",
}


def _run(repo: Path, folder: Path, case: str, reason: str, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_case.py").write_text(CASES[case].format(reason=reason))
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.skips", "-p", "no:cacheprovider", str(folder)]
    environment = os.environ | {"MMPT_CI": ci, "PYTHONPATH": str(repo), "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("case", CASES)
def test_an_unlisted_reason_fails_in_ci_alone(repo: Path, tmp_path: Path, case: str) -> None:
    result = _run(repo, tmp_path, case, "no such extra", ci="1")
    assert result.returncode not in (0, 5), result.stdout
    assert "allowed_skips.txt does not list: no such extra" in result.stdout
    assert _run(repo, tmp_path, case, "no such extra", ci="").returncode in (0, 5)


def test_a_listed_reason_is_allowed(repo: Path, tmp_path: Path) -> None:
    assert _run(repo, tmp_path, "by itself", "no Chromium on this machine", ci="1").returncode == 0
