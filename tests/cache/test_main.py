"""``python -m mmpt.cache``: lists, verifies, prunes, and imports nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.cache.store import Store
from tests.cache.test_store import KEYS, ROOT, fetch, flip
from tests.commands import cache as main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(list(words))
    return code, capsys.readouterr().out


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in KEYS[:2]:
        fetch(Store(tmp_path, 1), key)
    code, text = run(capsys, "list", "--dir", str(tmp_path))
    assert code == 0 and text.splitlines()[-1] == f"2 entries, 32.3 kB, in {tmp_path}"
    assert text.startswith(KEYS[0][:12]) and "task t" in text
    _, text = run(capsys, "list", "--dir", str(tmp_path), "--json")
    listed = json.loads(text)
    assert [row["key"] for row in listed["entries"]] == KEYS[:2]
    assert {"bytes", "used", "created", "sha256", "task"} <= set(listed["entries"][0])


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in KEYS[:2]:
        fetch(Store(tmp_path, 1), key)
    assert run(capsys, "verify", "--dir", str(tmp_path)) == (0, f"2 entries read, 0 damaged, in {tmp_path}\n")
    flip(tmp_path / f"{KEYS[1]}.safetensors")
    code, text = run(capsys, "verify", "--dir", str(tmp_path))
    assert code == 1 and text.startswith(f"{KEYS[1][:12]} is damaged (its checksum is another)")
    code, text = run(capsys, "verify", "--dir", str(tmp_path), "--json")
    assert code == 1 and [row["problem"] is None for row in json.loads(text)["entries"]] == [True, False]


def test_prune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in KEYS[:3]:
        fetch(Store(tmp_path, 1), key)
    assert run(capsys, "prune", "--dir", str(tmp_path))[1].startswith("0 entries deleted")
    code, text = run(capsys, "prune", "--dir", str(tmp_path), "--max-gb", "0.00004")
    assert (code, text) == (0, f"1 entry deleted, 16.2 kB; 32.3 kB left in {tmp_path}\n")
    code, text = run(capsys, "prune", "--dir", str(tmp_path), "--max-gb", "0", "--json")
    assert {row["key"] for row in json.loads(text)["entries"]} == set(KEYS[1:3])


def test_a_cache_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--dir", str(tmp_path / "nowhere")]) == 2
    assert f"--dir {tmp_path / 'nowhere'}: no such directory" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-1", "nan", "much"])
def test_an_impossible_bound(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", f"--max-gb={value}"]) == 2
    said = capsys.readouterr().err
    assert value in said and said.startswith("error: ") and said.count("\n") == 1


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    program = "import sys; from mmpt.cli.app import main; main(['cache', 'list']); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "MMPT_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"0 entries, 0.0 kB, in {tmp_path}\n")
