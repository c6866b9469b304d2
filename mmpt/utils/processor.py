"""Which number format the device multiplies fast. Says so without torch where it can: the first line has it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Literal

_GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # CUDA, CUDA below Windows, ROCm
_FAST = ("amx_bf16", "avx512_bf16")  # processors with instructions for products of bfloat16


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
