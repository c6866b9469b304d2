"""Who may write to a run directory: the process that holds its lock."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from mmpt.errors import InUseError
from mmpt.utils.files import writing

LOCK = ".lock"
_held: set[int] = set()  # descriptors of the locks of this process


def acquire_lock(directory: Path) -> int:
    """Lock a run directory for this process, by a file descriptor that the system closes if the process is killed.

    Raises:
        InUseError: Another process holds it.
        RunError: The lock's file cannot be written.
    """
    path = directory / LOCK
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise InUseError(
                f"run directory {directory} is in use by pid {owner}; wait for it, or name another run.dir"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        _held.add(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    return descriptor


def release_lock(descriptor: int) -> None:
    """Unlock the directory of a lock that this process holds, by its file descriptor."""
    _held.discard(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would not unlock while a copy of the descriptor is open
    os.close(descriptor)


def _drop_inherited_locks() -> None:
    """In a forked process, such as a data loader's worker: it may outlive its parent, and no lock should."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_drop_inherited_locks)
