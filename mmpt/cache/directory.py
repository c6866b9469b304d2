"""The directory that entries lie in: what it holds, how large it is, and what may be deleted.

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
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from filelock import FileLock

from mmpt.cache.entry import checksum
from mmpt.errors import CacheError
from mmpt.utils import locks
from mmpt.utils.files import cache_directory
from mmpt.utils.untrusted import parse_json, read_text

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


class CacheDirectory:
    """The files of a cache. Methods raise CacheError where the directory cannot be read or written."""

    def __init__(self, directory: str | Path | None) -> None:
        """Name it, :func:`mmpt.utils.files.cache_directory` where None; nothing is made yet."""
        self.directory = cache_directory() if directory is None else Path(directory).expanduser()

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
        """Keep other processes from making or using room within the block."""
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
        """Turn a system error into a CacheError: one line that says what the directory cannot be."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else error.strerror or str(error)
            raise CacheError(f"{self.directory} cannot be {what} ({reason})") from error
