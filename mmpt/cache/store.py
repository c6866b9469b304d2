"""The store: entries named by what they were computed from, shared by processes, bounded in size.

One process computes an entry, the others wait and then read. The files of a directory:

    KEY.safetensors   the tensors; its lock is shared by readers, and exclusive for who deletes it
    KEY.json          checksum, size, what it is of; its time of change is when the entry was last used
    KEY.tmp           being written; KEY.lock is held by the writer alone
    .lock             held for moments, while room is made

An entry exists when both of its files do: the JSON is written first, then the tensors get their name. What a
killed process left is deleted by the next one that makes room. Files with other names are never touched. Imports
nothing heavy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from filelock import FileLock

from mmpt.cache.entry import Draft, Mapped, Tensors, checksum, lay_out
from mmpt.errors import CacheError
from mmpt.utils import locks
from mmpt.utils.files import cache_directory
from mmpt.utils.machine import GB
from mmpt.utils.text import size_text
from mmpt.utils.untrusted import one_line, parse_json, read_text

_OURS = re.compile(r"([0-9a-f]{64})\.(safetensors|json|json\.tmp|tmp|lock)")


class Damaged(Exception):
    """An entry is not what was written."""


@dataclass(frozen=True)
class Entry:
    """What is known of an entry without reading it: ``used`` in seconds since 1970."""

    key: str
    bytes: int
    used: float
    description: Mapping[str, Any]


class Store:
    """The files of a cache. Methods raise CacheError where the directory cannot be read or written."""

    def __init__(self, directory: str | Path | None, max_gb: float) -> None:
        """Name the directory, by default ``$MMPT_CACHE``, and the most GB (10⁹ bytes) of all its files."""
        self.directory = cache_directory() if directory is None else Path(directory).expanduser()
        self.max_bytes = round(max_gb * GB)

    def path(self, key: str, suffix: str) -> Path:
        """A file of an entry."""
        return self.directory / f"{key}.{suffix}"

    def entries(self) -> list[Entry]:
        """All entries, the one used longest ago first."""
        entries = []
        for key, suffix, path in self._files():
            if suffix == "safetensors":
                described = self.path(key, "json")
                with contextlib.suppress(FileNotFoundError):  # deleted in between
                    used = (described if described.exists() else path).stat().st_mtime
                    entries.append(Entry(key, path.stat().st_size, used, self.description(key)))
        return sorted(entries, key=lambda entry: entry.used)

    def size(self) -> int:
        """Bytes of all tensors, those being written included."""
        total = 0
        for _, suffix, path in self._files():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size if suffix in ("safetensors", "tmp") else 0
        return total

    def description(self, key: str) -> dict[str, Any]:
        """The JSON of an entry; empty where it is missing or damaged."""
        try:
            content = parse_json(read_text(self.path(key, "json")))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def verify(self, key: str) -> str | None:
        """What is wrong with an entry, None if nothing is. It does not count as a use."""
        try:
            with self.errors("read"), self.path(key, "safetensors").open("rb", buffering=0) as file:
                self.compare(key, file)
        except Damaged as problem:
            return str(problem)
        return None

    def compare(self, key: str, file: BinaryIO) -> None:
        """Compare an entry's file with its description, and raise Damaged where they differ."""
        stated = self.description(key)
        if "sha256" not in stated:
            raise Damaged("has no description, or a damaged one")
        if (size := os.fstat(file.fileno()).st_size) != stated.get("bytes"):
            raise Damaged(f"is damaged ({size} bytes of {stated.get('bytes')})")
        if checksum(file) != stated["sha256"]:
            raise Damaged("is damaged (its checksum is another)")

    def prune(self, bound: int) -> list[Entry]:
        """Delete what killed processes left, and the entries used longest ago, until all are within ``bound`` bytes.

        Entries that a process reads stay. Returns the deleted ones.
        """
        if not self.directory.is_dir():
            return []
        with self.alone():
            return self.shrink(bound)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process make or use room within the block."""
        with self.errors("written"), FileLock(self.directory / ".lock", fallback_to_soft=False):
            yield

    def shrink(self, bound: int) -> list[Entry]:
        """:meth:`prune` for a caller that is :meth:`alone`."""
        self._tidy()
        total, deleted = self.size(), []
        for entry in self.entries():
            if total <= bound:
                break
            # an OSError: read by a process, deleted in between, or another user's
            with contextlib.suppress(OSError), self.path(entry.key, "safetensors").open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.delete(entry.key)
                total -= entry.bytes
                deleted.append(entry)
        return deleted

    def delete(self, key: str) -> None:
        """Delete an entry, whoever reads it: maps of it stay valid."""
        for suffix in ("safetensors", "json"):
            self.path(key, suffix).unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Delete unfinished files whose writer is gone, and descriptions without tensors."""
        kinds: dict[str, set[str]] = {}
        for key, suffix, _ in self._files():
            kinds.setdefault(key, set()).add(suffix)
        for key, suffixes in kinds.items():
            left = suffixes - ({"safetensors", "json"} if "safetensors" in suffixes else set())
            if left and locks.is_free(self.path(key, "lock")):
                for suffix in left:
                    self.path(key, suffix).unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[str, str, Path]]:
        """Key, suffix and path of each of the cache's files."""
        with self.errors("read"):
            try:
                paths = sorted(self.directory.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                paths = []
        for path in paths:
            if match := _OURS.fullmatch(path.name):
                yield match[1], match[2], path

    @contextlib.contextmanager
    def errors(self, what: Literal["read", "written"]) -> Iterator[None]:
        """Turn a system error into a CacheError: one line, whether the directory cannot be read or written."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else error.strerror or str(error)
            raise CacheError(f"{self.directory} cannot be {what} ({reason})") from error

    def has(self, key: str) -> bool:
        """Whether an entry exists; it may be damaged."""
        try:
            return self.path(key, "safetensors").exists() and self.path(key, "json").exists()
        except OSError:
            return False

    def open(self, key: str, tensors: Tensors | None = None) -> Mapped | None:
        """Map an entry, and note that it was used; None if there is none. It must hold ``tensors``, unless None.

        Damaged: it is cut short, its checksum is not the one that was written, or it holds something else.
        CacheError: it cannot be read.
        """
        path = self.path(key, "safetensors")
        with contextlib.ExitStack() as stack, self.errors("read"):
            try:
                file = stack.enter_context(path.open("rb", buffering=0))
            except (FileNotFoundError, NotADirectoryError):
                return None
            fcntl.flock(file, fcntl.LOCK_SH)
            if not os.fstat(file.fileno()).st_nlink:  # deleted in between
                return None
            self.compare(key, file)
            try:
                mapped = Mapped(path, file, read=True)
            except ValueError as error:
                raise Damaged(f"is damaged ({one_line(error)})") from error
        if tensors is not None and {name: (at.kind, at.shape) for name, at in mapped.spans.items()} != dict(tensors):
            raise Damaged("is damaged (it holds other tensors)")
        with contextlib.suppress(OSError):  # a directory that can only be read
            os.utime(self.path(key, "json"))
        return mapped

    def fetch(
        self,
        key: str,
        tensors: Tensors,
        fill: Callable[[Draft], None],
        description: Mapping[str, Any],
        note: Callable[[str], None],
    ) -> Mapped:
        """Map an entry, and compute it first if it does not exist; other processes that want it wait for it.

        The key names everything that the content depends on; ``fill`` writes the tensors; ``note`` shows lines about
        damage and waiting. CacheError: the directory cannot be written, or lacks the room.
        """
        with contextlib.suppress(Damaged):  # reported below, if it still is once the lock is held
            if (mapped := self.open(key, tensors)) is not None:
                return mapped

        def waiting() -> None:
            note(f"cache: another process computes entry {key[:12]}; waiting for it")

        with self.errors("written"):
            self.directory.mkdir(parents=True, exist_ok=True)
            with locks.holding(self.path(key, "lock"), waiting):
                try:
                    if (mapped := self.open(key, tensors)) is not None:
                        return mapped
                except Damaged as problem:
                    note(f"cache: entry {key[:12]} in {self.directory} {problem}; it is deleted and computed again")
                    self.delete(key)
                return self._compute(key, tensors, fill, description)

    def _compute(
        self, key: str, tensors: Tensors, fill: Callable[[Draft], None], description: Mapping[str, Any]
    ) -> Mapped:
        """Write an entry; the caller holds its lock. It exists wholly or not at all."""
        with self.alone():
            self._make_room(lay_out(tensors)[2])
            draft = Draft(self.path(key, "tmp"), tensors)
        try:
            fill(draft)
            digest = draft.finish()
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._describe(key, {**description, "sha256": digest, "bytes": draft.size, "created": now})
            draft.path.replace(self.path(key, "safetensors"))
        except BaseException:
            draft.discard()
            raise
        return Mapped(self.path(key, "safetensors"), draft.file, read=False)

    def _make_room(self, needed: int) -> None:
        """Delete old entries until ``needed`` bytes fit in the bound and on the disk, or raise CacheError."""
        room = self.max_bytes - needed
        if room >= 0:
            self.shrink(room)
        if 0 <= room < self.size():
            gc.collect()  # earlier runs of this process may still hold maps, in reference cycles
            self.shrink(room)
        entry, used = f"an entry takes {size_text(needed)}", self.size()
        if used > room:
            others = f", and {size_text(used)} are in use by runs" if used else ""
            raise CacheError(f"{self.directory} lacks the room: {entry}{others}, cache.max_gb={self.max_bytes / GB:g}")
        if needed > (free := shutil.disk_usage(self.directory).free):
            raise CacheError(f"{self.directory} lacks the room: {entry}, its disk has {size_text(free)} free")

    def _describe(self, key: str, content: Mapping[str, Any]) -> None:
        temporary = self.path(key, "json.tmp")
        temporary.unlink(missing_ok=True)  # a link would be followed
        with temporary.open("x", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path(key, "json"))
