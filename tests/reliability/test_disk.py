"""Full, read-only and slow disks: a line that says what and where, the last good checkpoint stays, the run goes on."""

from __future__ import annotations

import contextlib
import errno
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt.training.checkpoint import last_checkpoint
from tests.reliability.faults import Bomb, command, figures
from tests.reliability.test_resume import said, words

FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def fails(root: Path, bomb: Bomb | None, *more: str) -> str:
    """The one line of a run that a disk ends; empty where the run was over before."""
    before = last_checkpoint(root / "hit" / "checkpoints")
    (root / "output.txt").unlink(missing_ok=True)
    (code,) = command(root, words(root, "hit", *more), bomb)
    if code == 0:
        return ""
    told = said(root)
    assert code == 2 and "Traceback" not in told, told
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert str(root / "hit") in line and "free" in line
    kept = last_checkpoint(root / "hit" / "checkpoints")
    assert before is None or kept is not None
    return line


def test_a_write_that_fails_is_told_and_the_run_goes_on(
    tmp_path: Path, whole: tuple[dict[str, Any], dict[str, int]]
) -> None:
    line = fails(tmp_path, Bomb("checkpoint", whole[1]["checkpoint"] // 2, error=errno.ENOSPC))
    assert "No space left on device" in line and "checkpoint-5 remains" in line
    assert command(tmp_path, words(tmp_path, "hit")) == [0]
    assert figures(tmp_path / "hit") == whole[0]


def test_a_write_that_is_cut_short_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """A bound on the size of files stands for the full disk; the next checkpoint's trained parameters exceed it."""
    assert command(tmp_path, words(tmp_path, "hit"), Bomb("step", 13)) == [-9]
    line = fails(tmp_path, Bomb(file_size=30_000))
    kept = last_checkpoint(tmp_path / "hit" / "checkpoints")
    assert kept is not None
    assert "cannot be written" in line and f"{kept.name} remains" in line


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["checkpoint", "file", "cache"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: errno.errorcode[fault])
def test_any_write_may_fail(
    tmp_path: Path, kind: str, fault: int, whole: tuple[dict[str, Any], dict[str, int]]
) -> None:
    draw = random.Random(fault)
    for _ in range(3):
        fails(tmp_path, Bomb(kind, draw.randrange(whole[1][kind]), error=fault))
    assert command(tmp_path, words(tmp_path, "hit")) == [0]
    found = figures(tmp_path / "hit")
    assert found == whole[0]


@pytest.mark.slow
def test_a_slow_disk_changes_nothing(tmp_path: Path, whole: tuple[dict[str, Any], dict[str, int]]) -> None:
    assert command(tmp_path, words(tmp_path, "hit"), Bomb(seconds=0.02)) == [0]
    assert figures(tmp_path / "hit") == whole[0]


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system in memory, with its own bound."""
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("free", [4, 60, 150, 200])
def test_a_disk_that_is_really_full(tmp_path: Path, free: int, whole: tuple[dict[str, Any], dict[str, int]]) -> None:
    """KiB that are free when the run begins; it needs about 500 for its files."""
    root = tmp_path / "disk"
    with small_disk(root, "3m"):
        filler = root / "filler"
        filler.write_bytes(bytes(1024 * (3072 - free - 32)))
        (code,) = command(tmp_path, words(root, "hit", f"cache.dir={tmp_path / 'cache'}"))
        told = said(tmp_path)
        assert code == 2 and "Traceback" not in told, told
        assert "error: " in told and f"{root / 'hit'}" in told and "free space" in told
        filler.unlink()
        assert command(tmp_path, words(root, "hit", f"cache.dir={tmp_path / 'cache'}")) == [0]
        assert figures(root / "hit") == whole[0]


@pytest.mark.slow
def test_a_disk_that_becomes_read_only(tmp_path: Path, whole: tuple[dict[str, Any], dict[str, int]]) -> None:
    root = tmp_path / "disk"
    with small_disk(root, "3m"):
        assert command(tmp_path, words(root, "hit"), Bomb("step", 13)) == [-9]
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        (code,) = command(tmp_path, words(root, "hit"))
        assert code == 2 and "Read-only file system" in said(tmp_path)
        subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
        assert command(tmp_path, words(root, "hit")) == [0]
        assert figures(root / "hit") == whole[0]
