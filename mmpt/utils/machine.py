"""What a process must know of its machine: memory, fast number formats, living processes. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import sys
from pathlib import Path
from typing import Literal

import psutil

GB = 10**9
_GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # CUDA, CUDA below Windows, ROCm
_FAST = ("amx_bf16", "avx512_bf16")  # processors with instructions for products of bfloat16
SLACK_SECONDS = 2.0  # times of processes and of records come from different clocks


def memory_bytes() -> int:
    """Bytes that this process may fill: the machine's memory, or a lower limit of its control group or of its own."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    own = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(found if own == resource.RLIM_INFINITY else [*found, own])


def fast_dtype() -> tuple[Literal["bfloat16", "float32"], str]:
    """What ``model.dtype=auto`` means for a frozen network here, ``bfloat16`` or ``float32``, and why."""
    if sys.platform == "win32" or any(Path(path).exists() for path in _GPUS):
        import torch

        if torch.cuda.is_available():
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
            return ("bfloat16", "this GPU has it") if fast else ("float32", "this GPU has no bfloat16")
    try:
        flags = re.search(r"^flags.*$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:  # not Linux
        flags = None
    for name in _FAST:
        if flags is not None and name in flags[0].split():
            return "bfloat16", f"this processor has {name}"
    return "float32", "this processor multiplies no other type faster"


def is_alive(host: object, pid: object, since: float | None = None) -> bool | None:
    """Whether a process lives; None where it is another machine's, or none is named.

    ``since`` is when it is known to have lived, in seconds since 1970: one born later has only taken its number.
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
