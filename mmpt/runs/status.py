"""``status.json``: the state of a run, and whether the process that wrote it still exists."""

from __future__ import annotations

import calendar
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpt.runs.result import FORMAT
from mmpt.utils.files import write_json
from mmpt.utils.machine import is_alive
from mmpt.utils.untrusted import parse_json, read_text

STATUS = "status.json"
_UTC = "%Y-%m-%dT%H:%M:%SZ"


def write_status(directory: Path, status: str, fingerprint: str, started: float, **more: Any) -> None:
    """Write ``status.json``; RunError where that is impossible.

    ``status`` is ``running``, ``done``, ``failed`` or ``interrupted``, ``started`` is in seconds since 1970, and
    ``more`` are further entries, such as ``error``.
    """
    content = {"format": FORMAT, "status": status, "config_fingerprint": fingerprint, "pid": os.getpid()}
    content |= {"host": platform.node(), "started": _utc(started), "updated": _utc(time.time()), **more}
    write_json(directory / STATUS, content)


def read_status(directory: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read the status of a run in a directory; None where it holds none, or another one."""
    status = _read(directory)
    return status if status is not None and status.get("config_fingerprint") == fingerprint else None


def process_alive(status: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a ``status.json`` still exists, as far as this machine can find out."""
    try:
        since: float | None = calendar.timegm(time.strptime(str(status.get("started")), _UTC))
    except ValueError:
        since = None
    return is_alive(status.get("host"), status.get("pid"), since) is not False


def is_busy(directory: Path) -> bool:
    """Whether a process works on the run in a directory, by its status; no lock is touched."""
    status = _read(directory)
    return status is not None and status["status"] == "running" and process_alive(status)


def _read(directory: Path) -> dict[str, Any] | None:
    try:
        status = parse_json(read_text(directory.expanduser() / STATUS))
        valid = isinstance(status["status"], str) and isinstance(status.get("error", {}), Mapping)
        return status if valid else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _utc(seconds: float) -> str:
    return time.strftime(_UTC, time.gmtime(seconds))
