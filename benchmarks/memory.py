"""Peak memory of a way's training step, in a process of its own: ``python -m benchmarks.memory WAY SHAPE LENGTHS``.

Prints bytes: the largest resident size of the whole process, with Python, PyTorch, weights and, where there is one, the
computation of the activation cache.
"""

from __future__ import annotations

import resource
import subprocess
import sys

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def peak(way: str, shape: str, lengths: str, prefix: int = 10) -> int:
    """Bytes of a fresh process after three steps; ``lengths`` as in ``setting.draw``, or a number of tokens."""
    command = [sys.executable, "-m", "benchmarks.memory", way, shape, lengths, str(prefix)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Run three steps, and print the peak."""
    from benchmarks.setting import draw, step_of

    way, shape, lengths = sys.argv[1:4]
    prefix = int(sys.argv[4]) if len(sys.argv) > 4 else 10
    batch = draw("fixed", int(lengths)) if lengths.isdigit() else draw(lengths)
    step = step_of(way, shape, batch, prefix)
    for _ in range(3):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT)


if __name__ == "__main__":
    main()
