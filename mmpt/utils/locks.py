"""Locks between processes, on files: the system frees those of a killed process by itself. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def holding(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file within the block; it is deleted at the end.

    ``waiting`` is called once if another process has the lock, before waiting for it.

    Raises:
        OSError: The file cannot be made, or the file system has no locks.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if waiting is not None:
                waiting()
            lock.acquire()
        yield
    finally:
        if lock.is_locked:
            path.unlink(missing_ok=True)  # while it is held: who waits for this file sees that it is gone
            lock.release()


def is_free(path: Path) -> bool:
    """Whether no process holds a lock file; a file that nobody holds is deleted on the way."""
    if not path.exists():
        return True
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except (Timeout, OSError):  # held, or another user's
        return False
    path.unlink(missing_ok=True)
    lock.release()
    return True
