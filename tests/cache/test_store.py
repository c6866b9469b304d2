"""The store under faults: damage, kills, several processes, full and foreign disks. Real files, real processes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import safe_open

from mmpt.cache.entry import Draft, Mapped
from mmpt.cache.store import Damaged, Store
from mmpt.errors import CacheError
from mmpt.utils.files import cache_directory

ROOT = Path(__file__).parents[2]
KEYS = [f"{number:064x}" for number in range(4)]
TENSORS = {"means": ("F32", (2, 3)), "states": ("BF16", (1000, 8))}  # 16 kB
CONTENT = bytes(range(250)) * 64


def fill(draft: Draft) -> None:
    draft.put("means", 0, memoryview(bytes(24)))
    for row in (500, 0):  # in any order
        draft.put("states", row, memoryview(CONTENT)[row * 16 : (row + 500) * 16])


def fetch(store: Store, key: str = KEYS[0], notes: list[str] | None = None) -> Mapped:
    return store.fetch(key, TENSORS, fill, {"task": "t"}, (notes if notes is not None else []).append)


def content(mapped: Mapped) -> bytes:
    span = mapped.spans["states"]
    return mapped.buffer[span.first : span.first + span.size]


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {".lock"}


def entry_files(*keys: str) -> set[str]:
    return {f"{key}.{suffix}" for key in keys for suffix in ("safetensors", "json")}


def test_an_entry_is_a_safetensors_file_with_a_description(tmp_path: Path) -> None:
    store = Store(tmp_path / "not" / "there", 1)
    first = fetch(store)
    assert content(first) == CONTENT and not first.read
    assert files(store.directory) == entry_files(KEYS[0])
    with safe_open(first.path, "pt") as file:
        assert set(file.keys()) == {"means", "states"}
        assert file.get_tensor("states").shape == (1000, 8)
    described = json.loads(store.path(KEYS[0], "json").read_text())
    assert described["task"] == "t" and described["bytes"] == first.path.stat().st_size
    assert {"sha256", "created"} <= set(described)
    again = fetch(store)
    assert again.read and content(again) == CONTENT


def test_the_environment_names_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMPT_CACHE", "/a")
    assert cache_directory() == Path("/a")
    monkeypatch.delenv("MMPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_directory() == Path("/b/mmpt")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "mmpt"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff\xfe")


DAMAGE = {
    "cut short": ("safetensors", cut, "bytes of"),
    "emptied": ("safetensors", lambda path: os.truncate(path, 0), "0 bytes of"),
    "changed": ("safetensors", flip, "checksum"),
    "no description": ("json", Path.unlink, "no description"),
    "half a description": ("json", cut, "no description"),
    "another description": ("json", lambda path: path.write_text('{"sha256": "0", "bytes": 1}'), "bytes of 1"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_reported_once_and_computed_again(name: str, tmp_path: Path) -> None:
    suffix, damage, word = DAMAGE[name]
    store, notes = Store(tmp_path, 1), []
    fetch(store)
    damage(store.path(KEYS[0], suffix))
    with pytest.raises(Damaged):
        store.open(KEYS[0])
    assert word in str(store.verify(KEYS[0]))
    again = fetch(store, notes=notes)
    assert not again.read and content(again) == CONTENT
    assert len(notes) == 1 and word in notes[0] and "computed again" in notes[0]
    assert store.verify(KEYS[0]) is None
    assert fetch(store, notes=notes).read and len(notes) == 1


PROGRAM = """
import sys, time
from pathlib import Path
from mmpt.cache.store import Store
from tests.cache.test_store import KEYS, TENSORS, content, fill

def slowly(draft):
    with Path(sys.argv[1], "computed").open("a") as file:
        file.write("x")
    fill(draft)
    print("writing", flush=True)
    time.sleep(float(sys.argv[2]))

def note(text):
    print(text, flush=True)

mapped = Store(sys.argv[1], 1).fetch(KEYS[0], TENSORS, slowly, {}, note)
print("read" if mapped.read else "computed", hash(content(mapped)), flush=True)
time.sleep(float(sys.argv[3]))
"""


def start(directory: Path, seconds: float, stay: float = 0.0) -> subprocess.Popen[str]:
    """A process that wants the first entry, and needs time to compute and to use it."""
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PROGRAM, str(directory), str(seconds), str(stay)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_two_processes_one_computes_and_the_other_waits_and_reads(tmp_path: Path) -> None:
    first = start(tmp_path, 1.5)
    assert line(first) == "writing"
    second = start(tmp_path, 0)
    assert line(second).endswith("waiting for it")
    printed = [process.communicate()[0].strip() for process in (first, second)]
    assert [text.split()[0] for text in printed] == ["computed", "read"]
    assert printed[0].split()[1] == printed[1].split()[1]
    assert (tmp_path / "computed").read_text() == "x"
    assert files(tmp_path) == {"computed", *entry_files(KEYS[0])}


def test_processes_that_start_at_once_compute_once(tmp_path: Path) -> None:
    running = [start(tmp_path, 0.3) for _ in range(3)]
    printed = [process.communicate()[0].strip().splitlines()[-1].split() for process in running]
    assert sorted(words[0] for words in printed) == ["computed", "read", "read"]
    assert len({words[1] for words in printed}) == 1
    assert (tmp_path / "computed").read_text() == "x"


def test_kill_in_the_middle_of_writing_leaves_no_entry_and_frees_the_lock(tmp_path: Path) -> None:
    first = start(tmp_path, 60)
    assert line(first) == "writing"
    second = start(tmp_path, 0)
    assert line(second).endswith("waiting for it")
    store = Store(tmp_path, 1)
    assert not store.has(KEYS[0]) and store.open(KEYS[0]) is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate()[0].split()[-2] == "computed", "the waiting process takes over"
    assert store.verify(KEYS[0]) is None
    assert files(tmp_path) == {"computed", *entry_files(KEYS[0])}


def test_what_a_killed_process_left_goes_when_room_is_made(tmp_path: Path) -> None:
    first = start(tmp_path, 60)
    assert line(first) == "writing"
    store = Store(tmp_path, 1)
    store.prune(store.max_bytes)
    assert f"{KEYS[0]}.tmp" in files(tmp_path), "a file being written was deleted"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    store.path(KEYS[2], "json").write_text("{}")  # killed between description and tensors
    assert {f"{KEYS[0]}.tmp", f"{KEYS[0]}.lock", f"{KEYS[2]}.json"} <= files(tmp_path)
    fetch(store, KEYS[1])
    assert files(tmp_path) == {"computed", *entry_files(KEYS[1])}


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    store = Store(tmp_path, 0.00004)  # 40 kB: two entries
    for age, key in ((300, KEYS[0]), (200, KEYS[1])):
        fetch(store, key)
        os.utime(store.path(key, "json"), (time.time() - age,) * 2)
    fetch(store, KEYS[0])  # used again
    newest = fetch(store, KEYS[2])
    assert files(tmp_path) == entry_files(KEYS[0], KEYS[2])
    assert content(newest) == CONTENT
    assert [entry.key for entry in store.entries()] == [KEYS[0], KEYS[2]]
    assert store.size() <= store.max_bytes


def test_what_a_process_reads_is_not_deleted(tmp_path: Path) -> None:
    reader = start(tmp_path, 0, stay=60)
    assert [line(reader), line(reader).split()[0]] == ["writing", "computed"]
    store = Store(tmp_path, 0.00002)  # 20 kB: one entry
    try:
        assert store.prune(0) == []
        with pytest.raises(CacheError, match=r"lacks the room: .* in use by runs, cache\.max_gb=2e-05"):
            fetch(store, KEYS[1])
        assert store.verify(KEYS[0]) is None
    finally:
        reader.kill()
        reader.communicate()
    assert not fetch(store, KEYS[1]).read
    assert KEYS[0] not in {entry.key for entry in store.entries()}


def test_what_this_process_has_just_written_is_not_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path, 1)
    mapped = fetch(store)
    assert store.prune(0) == []
    del mapped
    assert [entry.key for entry in store.prune(0)] == [KEYS[0]]
    assert files(tmp_path) == set()


def test_foreign_files_stay(tmp_path: Path) -> None:
    for name in ("notes.json", "model.safetensors", "a.tmp"):
        (tmp_path / name).write_text("mine")
    store = Store(tmp_path, 1)
    fetch(store)
    store.prune(0)
    assert files(tmp_path) == {"notes.json", "model.safetensors", "a.tmp"}


def test_more_than_the_bound_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, 0.00001)
    with pytest.raises(CacheError, match=r"an entry takes 16\.\d kB, cache\.max_gb=1e-05"):
        fetch(store)
    assert files(tmp_path) == set()


def test_more_than_the_disk_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    with pytest.raises(CacheError, match=r"an entry takes 16\.\d kB, its disk has 5\.0 kB free"):
        fetch(Store(tmp_path, 1))
    assert files(tmp_path) == set()


def test_a_disk_that_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, done = os.pwrite, []

    def full(handle: int, data: memoryview, at: int) -> int:
        done.append(at)
        if len(done) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(CacheError, match=r"cannot be written \(the disk is full\)"):
            fetch(Store(tmp_path, 1))
    assert files(tmp_path) == set()
    assert content(fetch(Store(tmp_path, 1))) == CONTENT


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    """A small file system in memory, where this user may mount one."""
    directory.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("needs Linux's tmpfs")
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_small_file_system_that_others_fill(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=64k"):
        store = Store(tmp_path / "small", 1)

        def fill_disk(draft: Draft) -> None:
            with pytest.raises(OSError, match="No space left"), (tmp_path / "small" / "other").open("wb") as file:
                for _ in range(20):
                    file.write(bytes(4096))
                    file.flush()
            fill(draft)

        with pytest.raises(CacheError, match=r"cannot be written \(the disk is full\)"):
            store.fetch(KEYS[0], TENSORS, fill_disk, {}, print)
        assert files(store.directory) == {"other"}


def test_a_file_system_that_can_only_be_read(tmp_path: Path) -> None:
    with mounted(tmp_path / "fixed", "size=1m"):
        store = Store(tmp_path / "fixed", 1)
        fetch(store)
        subprocess.run(["mount", "-o", "remount,ro", str(store.directory)], check=True)
        assert content(fetch(store)) == CONTENT
        with pytest.raises(CacheError, match=r"cannot be written \(Read-only file system\)"):
            fetch(store, KEYS[1])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_can_still_be_read_from(tmp_path: Path) -> None:
    store = Store(tmp_path, 1)
    fetch(store)
    tmp_path.chmod(0o555)
    try:
        assert content(fetch(store)) == CONTENT
        with pytest.raises(CacheError, match=r"cannot be written \(Permission denied\)"):
            fetch(store, KEYS[1])
    finally:
        tmp_path.chmod(0o755)


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"file/below cannot be written \(Not a directory\)"):
        fetch(Store(tmp_path / "file" / "below", 1))


def test_another_file_system(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no other file system at /dev/shm")
    directory = memory / f"mmpt-test-{os.getpid()}"
    try:
        fetch(Store(directory, 1))
        assert content(fetch(Store(directory, 1))) == CONTENT
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_a_map_outlives_its_directory(tmp_path: Path) -> None:
    mapped = fetch(Store(tmp_path / "gone", 1))
    shutil.rmtree(tmp_path / "gone")
    assert content(mapped) == CONTENT
    assert Store(tmp_path / "gone", 1).entries() == []
    assert not fetch(Store(tmp_path / "gone", 1)).read


def test_a_directory_deleted_while_writing(tmp_path: Path) -> None:
    store = Store(tmp_path / "gone", 1)

    def deleted(draft: Draft) -> None:
        fill(draft)
        shutil.rmtree(store.directory)

    with pytest.raises(CacheError, match=r"cannot be written \(No such file or directory\)"):
        store.fetch(KEYS[0], TENSORS, deleted, {}, print)
    assert content(fetch(store)) == CONTENT
