"""Peak memory of a way's training step, in a process of its own: ``python -m benchmarks.memory WAY SHAPE LENGTHS``.

Prints two numbers of bytes: the largest resident size of the process over three steps, with Python, PyTorch and
weights; and how much of it lies above the loaded model, which is what training itself needs. The activation cache is
filled before, as in every run but the first. Linux only: the kernel's high-water mark is reset before the steps. After
LENGTHS, prefix tokens, another number of steps and the network's type may be given.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from pathlib import Path


def peak(
    way: str, shape: str, lengths: str, prefix: int = 10, steps: int = 3, dtype: str = "float32"
) -> tuple[int, int]:
    """Bytes of a fresh process, and those above the model; ``lengths`` is of ``setting.draw``, or a token count."""
    command = [sys.executable, "-m", "benchmarks.memory", way, shape, lengths, str(prefix), str(steps), dtype]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(words[-2]), int(words[-1])


def resident(name: str) -> int:
    """Bytes of this process now (``VmRSS``) or at most (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> None:
    """Run the steps, and print the peaks."""
    from benchmarks.setting import draw, step_of

    way, shape, lengths = sys.argv[1:4]
    prefix = int(sys.argv[4]) if len(sys.argv) > 4 else 10
    steps = int(sys.argv[5]) if len(sys.argv) > 5 else 3
    dtype = sys.argv[6] if len(sys.argv) > 6 else "float32"
    batch = draw("fixed", int(lengths)) if lengths.isdigit() else draw(lengths)
    step_of(way, shape, draw("fixed", 8, rows=2), prefix, dtype)()  # libraries' own buffers
    step = step_of(way, shape, batch, prefix, dtype)
    gc.collect()  # the first model: its hooks refer to it
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what building the models left free
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # reset the high-water mark
    before = resident("VmRSS")
    for _ in range(steps):
        step()
    most = resident("VmHWM")
    print(most, most - before)


if __name__ == "__main__":
    main()
