"""One entry of the store: a safetensors file that is written in pieces, and read through a memory map.

The layout is that of https://huggingface.co/docs/safetensors: the header's length (8 bytes, little endian), the header
(JSON: type, shape and offsets of each tensor), the tensors. Written here, because the library writes tensors that are
whole and in memory, and an entry may be larger than memory. Imports nothing heavy.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mmpt.utils.untrusted import parse_json

SIZES = {"F32": 4, "F16": 2, "BF16": 2}  # bytes of an element, by safetensors' name of the type
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # safetensors' name of the type, and shape, of each tensor


class Span(NamedTuple):
    """A tensor in a file: safetensors' name of its type, its shape, and its first byte."""

    kind: str
    shape: tuple[int, ...]
    first: int = 0

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return SIZES[self.kind] * math.prod(self.shape)


def lay_out(tensors: Tensors) -> tuple[bytes, dict[str, Span], int]:
    """The header of a file of tensors, where each of them lies, and the size of the file."""
    header: dict[str, Any] = {}
    end = 0
    for name, (kind, shape) in tensors.items():
        first, end = end, end + Span(kind, shape).size
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    start = 8 + len(text)
    spans = {name: Span(*tensors[name], start + header[name]["data_offsets"][0]) for name in tensors}
    return len(text).to_bytes(8, "little") + text, spans, start + end


def checksum(file: BinaryIO) -> str:
    """SHA-256 of a whole file in hexadecimal, read piece by piece: nothing of it stays in memory."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _spans(buffer: mmap.mmap) -> dict[str, Span]:
    """Where tensors lie as the header states it; ValueError where one has no shape, or lies outside of the file."""
    start = 8 + int.from_bytes(buffer[:8], "little")
    spans: dict[str, Span] = {}
    for name, stated in parse_json(buffer[8:start]).items():
        if name == "__metadata__":
            continue
        span = Span(stated["dtype"], tuple(stated["shape"]), start + stated["data_offsets"][0])
        numbers = (*span.shape, span.first)
        if span.kind not in SIZES or not span.shape or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"its tensor {name} has no valid type and shape")
        if not start <= span.first <= span.first + span.size <= len(buffer):
            raise ValueError(f"its tensor {name} lies outside of the file")
        spans[name] = span
    return spans


class Draft:
    """An entry while it is written, in a file that nobody reads. The caller holds the lock of its key."""

    def __init__(self, path: Path, tensors: Tensors) -> None:
        """Make the file, at its full size; OSError where that is impossible."""
        header, self.spans, self.size = lay_out(tensors)
        self.path = path
        path.unlink(missing_ok=True)  # what a killed process left, or a link, which would be followed
        self.file = path.open("x+b", buffering=0)
        os.ftruncate(self.file.fileno(), self.size)
        self._write(header, 0)

    def put(self, name: str, row: int, block: memoryview) -> None:
        """Write rows of a tensor, from ``row`` on, whose bytes ``block`` has; OSError where no room is left."""
        span = self.spans[name]
        self._write(block, span.first + row * (span.size // max(span.shape[0], 1)))

    def _write(self, block: bytes | memoryview, at: int) -> None:
        # written, not mapped: where the disk is full a write raises an error, and a touched page kills the process
        left = memoryview(block).cast("B")
        while len(left):
            count = os.pwrite(self.file.fileno(), left, at)
            left, at = left[count:], at + count

    def finish(self) -> str:
        """Flush all to the disk, acquire the shared lock of readers, and return the checksum."""
        os.fsync(self.file.fileno())
        fcntl.flock(self.file.fileno(), fcntl.LOCK_SH)
        return checksum(self.file)

    def discard(self) -> None:
        """Delete the file."""
        self.file.close()
        self.path.unlink(missing_ok=True)


class Mapped:
    """A finished entry, mapped: pages come from the disk as they are touched, and go when memory is short.

    A shared lock protects the file from eviction as long as this object or a view of its buffer lives; where its
    directory is deleted, the map stays valid. ``read`` is false if this process has just computed the entry.
    """

    def __init__(self, path: Path, file: BinaryIO, read: bool) -> None:
        """Map an open file on which the caller holds a shared lock.

        OSError: it cannot be mapped. ValueError: it is no safetensors file of ours.
        """
        self.path, self.read = path, read
        with file:  # the map has a handle of its own, and with it the lock
            self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self.spans = _spans(self.buffer)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"its header is invalid ({type(error).__name__}: {error})") from error

    @classmethod
    def reopen(cls, path: Path) -> Mapped:
        """Map an entry that another process has verified and holds open; OSError if it no longer exists."""
        file = path.open("rb", buffering=0)
        fcntl.flock(file, fcntl.LOCK_SH)
        return cls(path, file, read=True)
