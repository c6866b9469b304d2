"""One epoch with its evaluation, ours against peft's: ``python -m benchmarks.epoch``.

The size and lengths of RTE (train 2,241, validation 249; synthetic words), random weights of t5-small's shape, batch
32. Ours is ``train.py`` itself with its run directory, checkpoints and journal; peft's is benchmarks/peft_trial.py.
Both run in this process in turns. Our first epoch is shown apart: it includes start and the one pass of the encoder
over all splits, which no later epoch, trial or seed repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.peft_trial import train
from benchmarks.setting import PREFIX, command_line, show, spread, write
from mmpt.utils.machine import fast_dtype


def ours(folder: Path, overrides: list[str], seed: int, epochs: int = 3) -> tuple[float, list[float]]:
    """Seconds of our first epoch with all that goes before it, and of each later epoch."""
    from mmpt.cli import main as command

    directory = folder / f"run-{seed}-{time.monotonic_ns()}"
    model = ["method=multimask", f"method.num_virtual_tokens={PREFIX}", "model=t5_small_random", "logger=none"]
    length = [f"trainer.num_train_epochs={epochs}", f"seed={seed}", "cache=ram"]
    began = time.time()
    with Path(os.devnull).open("w", encoding="utf-8") as nothing, redirect_stdout(nothing):
        if command([*overrides, *model, *length, f"run.dir='{directory}'"]) != 0:
            raise SystemExit("our run failed")
    lines = map(json.loads, (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    ends = [line["time"] for line in lines if "validation/loss" in line]
    return ends[0] - began, [last - first for first, last in pairwise(ends)]


def measure(examples: int, validation: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of peft's epoch, in float32 and in our default type, of our first one, and of our later ones."""
    dtype = fast_dtype()[0]
    same = "peft prefix" if dtype == "float32" else f"peft prefix, {dtype}"
    ways = ("peft prefix", same, "ours, first epoch", "ours, later epochs")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        overrides = texts.make(folder, examples, validation)
        for round_ in range(rounds):
            first, later = ours(folder, overrides, seed=round_ + 1)
            seconds["ours, first epoch"].append(first)
            seconds["ours, later epochs"] += later
            seconds["peft prefix"] += train(folder, epochs=1, seed=round_ + 1)
            if same != "peft prefix":
                seconds[same] += train(folder, epochs=1, seed=round_ + 1, dtype=dtype)
    base, of_this_type = (statistics.median(seconds[way]) for way in ("peft prefix", same))
    rows = []
    for way, values in seconds.items():
        middle = statistics.median(values)
        row = {"way": way, "train": examples, "validation": validation, "seconds": middle, "spread": spread(values)}
        ratios = {"peft prefix / this": base / middle, "peft prefix of our dtype / this": of_this_type / middle}
        rows.append({**row, **ratios, "all seconds": values})
    return rows


def main() -> None:
    """Measure, print a table, and write ``benchmarks/results/epoch.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=2241)
    parser.add_argument("--validation", type=int, default=249)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows = measure(arguments.examples, arguments.validation, arguments.rounds)
    show(rows)
    write("epoch", command_line("epoch"), rows, shape="t5_small")


if __name__ == "__main__":
    main()
