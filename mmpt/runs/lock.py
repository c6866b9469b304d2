"""Who may write to a run directory, or use a study: the process that holds its lock."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from mmpt.errors import InUseError
from mmpt.utils.files import writing

_held: set[int] = set()  # descriptors of the locks of this process


def acquire_lock(path: Path, what: str, remedy: str) -> int:
    """Lock a file for this process, by a file descriptor that the system closes if the process is killed.

    Raises:
        InUseError: Another process holds it; ``what`` is in use, and ``remedy`` is what to do besides waiting.
        RunError: The file cannot be written.
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
