"""Whether the process that a record names still lives. Imports nothing heavy."""

from __future__ import annotations

import platform

import psutil

SLACK_SECONDS = 2.0  # times of processes and of records come from different clocks


def is_alive(host: object, pid: object, since: float | None = None) -> bool | None:
    """Whether a process lives; None where it is another machine's, or none is named.

    Args:
        host: Name of its machine.
        pid: Its number there.
        since: When it is known to have lived, in seconds since 1970: a process born later has only taken its number.
    """
    if host != platform.node() or not isinstance(pid, int) or pid <= 0:
        return None
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return since is None or process.create_time() <= since + SLACK_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # another user's: it is there
        return True
