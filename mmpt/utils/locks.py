"""Locks between processes, on files: the system frees those of a killed process by itself. Imports nothing heavy."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def holding(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file within the block; it is deleted at the end.

    Args:
        path: The lock file.
        waiting: Called once where another process has the lock, before waiting for it.

    Raises:
        OSError: The file can't be made, or the file system has no locks.
    """
    handle = _take(path, waiting)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits for this file finds it gone, and makes another
        os.close(handle)


def is_free(path: Path) -> bool:
    """Whether no process holds a lock file; a file that nobody holds is deleted on the way."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:  # another user's: nothing is known about it
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if same_file(handle, path):
            path.unlink(missing_ok=True)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def same_file(handle: int, path: Path) -> bool:
    """Whether an open file is still what lies at a path."""
    try:
        there = path.stat()
    except OSError:
        return False
    mine = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _take(path: Path, waiting: Callable[[], None] | None) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                    waiting = None
                fcntl.flock(handle, fcntl.LOCK_EX)
            if same_file(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
