"""Whether memory stays flat: ``python -m benchmarks.soak [--steps 2000] [--trials 50]``, in one process, on the CPU.

One run of many optimizer steps, with an evaluation, a checkpoint and a log line every 50; then many short runs, each
with another seed. After every 50 steps, and after every run, the process's resident size is read (Linux only), behind a
garbage collection and ``malloc_trim``. The first quarter warms up and is left out; through the rest goes a line, whose
slope is reported with its 95 % confidence interval. Writes benchmarks/results/soak.json.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

from benchmarks.memory import resident
from benchmarks.setting import write
from mmpt.cli import main as mmpt
from mmpt.training.monitor import Monitor

SMALL = ["data.limit_train=320", "data.limit_validation=16", "data.limit_test=16", "evaluation.bootstrap=0"]
SMALL += ["logger=none", "trainer.per_device_train_batch_size=8"]
EVERY = 50  # steps between two readings


def read() -> int:
    """Bytes of this process that are in use."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident("VmRSS")


def slope(readings: list[int], unit: int) -> dict[str, Any]:
    """Bytes that each step or trial adds, and the 95 % confidence interval.

    Args:
        readings: Bytes, at equal distances.
        unit: Steps or trials between two of them.
    """
    later = np.array(readings[len(readings) // 4 :], dtype=float)
    line = scipy.stats.linregress(unit * np.arange(len(later)), later)
    half = scipy.stats.t.ppf(0.975, len(later) - 2) * line.stderr
    return {
        "bytes_each": round(line.slope, 1),
        "interval": [round(line.slope - half, 1), round(line.slope + half, 1)],
        "readings_mb": [round(value / 1e6, 2) for value in readings],
    }


def soak_steps(root: Path, steps: int) -> list[int]:
    """One run; readings every :data:`EVERY` steps."""
    readings: list[int] = []
    end_step = Monitor.end_step

    def measured(self: Monitor, step: int) -> None:
        end_step(self, step)
        if step % EVERY == 0:
            readings.append(read())

    Monitor.end_step = measured  # type: ignore[method-assign]
    try:
        words = [f"trainer.max_steps={steps}", "trainer.eval_strategy=steps", f"trainer.eval_steps={EVERY}"]
        run([*words, f"trainer.logging_steps={EVERY}", f"run.dir='{root / 'steps'}'"])
    finally:
        Monitor.end_step = end_step  # type: ignore[method-assign]
    return readings


def soak_trials(root: Path, trials: int) -> list[int]:
    """Many runs; a reading after each."""
    readings = []
    for trial in range(trials):
        run([f"seed={trial}", "trainer.max_steps=6", f"run.dir='{root / str(trial)}'"])
        readings.append(read())
    return readings


def run(words: list[str]) -> None:
    """A run that must succeed, without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = mmpt([*SMALL, *words])
    if code != 0:
        raise SystemExit(code)


def main() -> None:
    """Soak, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=50)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mmpt-soak-") as folder:
        run(["trainer.max_steps=2", f"run.dir='{folder}/first'"])  # imports, and libraries' own buffers
        steps = slope(soak_steps(Path(folder), given.steps), EVERY)
        trials = slope(soak_trials(Path(folder), given.trials), 1)
    rows = [{"of": "step", "count": given.steps, **steps}, {"of": "trial", "count": given.trials, **trials}]
    write("soak", f"python -m benchmarks.soak --steps {given.steps} --trials {given.trials}", rows, batch=8)
    for row in rows:
        low, high = row["interval"]
        print(f"{row['count']} {row['of']}s: {row['bytes_each']:+.1f} bytes each [{low:+.1f}, {high:+.1f}]")


if __name__ == "__main__":
    main()
