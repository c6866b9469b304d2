"""How much memory this process may fill."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

GB = 10**9


def memory_bytes() -> int:
    """Bytes that this process may fill: the machine's memory, or a lower limit of its control group or of its own."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    own = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(found if own == resource.RLIM_INFINITY else [*found, own])
