"""Locks between processes, on files: the system frees those of a killed process by itself. Imports nothing heavy."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mmpt.errors import InUseError
from mmpt.utils.files import writing

_held: set[int] = set()  # descriptors of the locks of this process


@contextmanager
def holding(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file within the block; it is deleted at the end.

    ``waiting`` is called once if another process has the lock, before waiting for it. OSError: the file cannot be made,
    or the file system has no locks.
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


def acquire_lock(path: Path, what: str, remedy: str) -> int:
    """Lock a file for this process, by a file descriptor that the system closes if the process is killed.

    InUseError: another process holds it: ``what`` is in use, and ``remedy`` is what to do besides waiting.
    RunError: the file cannot be written.
    """
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise InUseError(f"{what} is in use by pid {owner}; wait for it, or {remedy}") from None
        except OSError:
            os.close(descriptor)
            raise
        _held.add(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    return descriptor


def release_lock(descriptor: int) -> None:
    """Release a lock that this process holds, by its file descriptor."""
    _held.discard(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would not unlock while a copy of the descriptor is open
    os.close(descriptor)


def _drop_inherited_locks() -> None:
    """In a forked process, such as a data loader's worker: it may outlive its parent, and no lock should."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_drop_inherited_locks)
