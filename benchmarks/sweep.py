"""A sweep of 24 trials, ours against 24 runs with peft one after another: ``python -m benchmarks.sweep``.

The size and lengths of RTE (synthetic words), random weights of t5-small's shape. Ours is one command, ``train.py
-m`` over learning rates and seeds, from nothing: start, weights, the one pass of the encoder, 24 trainings with
evaluation and run directories. With peft every trial is a process of its own (benchmarks/peft_trial.py), as a shell
loop would start it. Those 24 processes do the same work: a few of them are timed, and their median counts 24 times.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.setting import PREFIX, command_line, show, write

ROOT = Path(__file__).resolve().parents[1]
GRID = ["method.lr.prefix=0.01,0.03,0.05,0.1", "method.lr.masks=0.03,0.05", "seed=1,2,3"]  # 24 trials

LAUNCHERS = {
    "one by one": [],
    "two at once": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],  # the extra joblib
}


def timed(command: list[str], cache: Path) -> float:
    """Seconds of a process that must succeed."""
    began = time.perf_counter()
    environment = {**os.environ, "MMPT_CACHE": str(cache)}
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print a table, and write ``benchmarks/results/sweep.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=2241)
    parser.add_argument("--validation", type=int, default=249)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--peft", type=int, default=3, help="how many of the 24 runs with peft to time")
    parser.add_argument("--ways", nargs="+", choices=LAUNCHERS, default=["one by one", "two at once"])
    arguments = parser.parse_args()
    rows, alone = measure(arguments.examples, arguments.validation, arguments.epochs, arguments.peft, arguments.ways)
    show(rows)
    write("sweep", command_line("sweep"), rows, shape="t5_small", examples=arguments.examples, timed_with_peft=alone)


def measure(
    examples: int, validation: int, epochs: int, timed_peft: int, launchers: Sequence[str], grid: Sequence[str] = GRID
) -> tuple[list[dict[str, Any]], list[float]]:
    """Rows of peft's processes and of ours, and the seconds of each process with peft.

    Args:
        examples: Of the training split.
        validation: Of the validation split.
        epochs: Of each trial.
        timed_peft: How many processes with peft are timed.
        launchers: Names in ``LAUNCHERS``.
        grid: Overrides of the sweep; none: one run, a cold start.
    """
    trials = math.prod(word.count(",") + 1 for word in grid)
    ways = {f"ours, {way}": LAUNCHERS[way] for way in launchers}
    alone: list[float] = []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        overrides = texts.make(folder, examples, validation)
        peft = [sys.executable, "-m", "benchmarks.peft_trial", str(folder), "--epochs", str(epochs)]
        model = [f"method.num_virtual_tokens={PREFIX}", "model=t5_small_random", "logger=none"]
        length = [f"trainer.num_train_epochs={epochs}"]
        many = ["-m"] if grid else []
        for number, (way, launcher) in enumerate(ways.items()):
            alone += [timed(peft, folder / "none") for _ in range(_share(timed_peft, len(ways), number))]
            root = [f"run.root='{folder / f'runs{number}'}'"]
            ours = [sys.executable, "train.py", *many, *overrides, *model, *length, *launcher, *root, *grid]
            seconds = timed(ours, folder / f"cache{number}")
            rows.append({"way": way, "trials": trials, "epochs": epochs, "seconds": seconds})
    base = trials * statistics.median(alone)
    one = {"way": f"peft prefix, {trials} processes", "trials": trials, "epochs": epochs, "seconds": base}
    return [{**row, "peft prefix / this": base / row["seconds"]} for row in [one, *rows]], alone


def _share(whole: int, parts: int, number: int) -> int:
    return whole // parts + (number < whole % parts)


if __name__ == "__main__":
    main()
