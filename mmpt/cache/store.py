"""The store: entries named by what they were computed from, shared by processes, bounded in size.

One process computes an entry, the others wait and then read. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmpt.cache.directory import CacheDirectory, Damaged
from mmpt.cache.entry import Draft, Mapped, Tensors, lay_out
from mmpt.errors import CacheError
from mmpt.utils import locks
from mmpt.utils.text import size_text
from mmpt.utils.untrusted import one_line

GB = 10**9


class Store(CacheDirectory):
    """Entries that are mapped, or computed first."""

    def __init__(self, directory: str | Path | None, max_gb: float) -> None:
        """Name the store; nothing is made yet. ``max_gb`` is the most GB (10⁹ bytes) of all its files."""
        super().__init__(directory)
        self.max_bytes = round(max_gb * GB)

    def has(self, key: str) -> bool:
        """Whether an entry exists; it may be damaged."""
        try:
            return self.path(key, "safetensors").exists() and self.path(key, "json").exists()
        except OSError:
            return False

    def open(self, key: str, tensors: Tensors | None = None) -> Mapped | None:
        """Map an entry, and note that it was used; None if there is none. It must hold ``tensors``, unless None.

        Raises:
            Damaged: It is cut short, its checksum is not the one that was written, or it holds something else.
            CacheError: It cannot be read.
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

        Args:
            key: Names everything that the content depends on.
            tensors: Type and shape of each tensor, which ``fill`` writes.
            fill: See ``tensors``.
            description: What the entry is of, for people.
            note: Shows lines about damage and waiting.

        Raises:
            CacheError: The directory cannot be written, or lacks the room.
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
