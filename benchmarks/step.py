"""One training step, ours in all modes against peft's: ``python -m benchmarks.step``.

Lengths are all T=96, or spread over the quantiles of RTE's training set. Peak memory is that of a process of its own
with the same step (benchmarks/memory.py).
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.memory import peak
from benchmarks.setting import PEFT, PREFIX, SHAPES, WAYS, command_line, draw, interleave, show, spread, step_of, write


def main() -> None:
    """Measure, print a Markdown table, and write ``benchmarks/results/step.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", choices=["fixed", "rte"], default=["fixed", "rte"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--name", default="step", help="of the file in benchmarks/results")
    arguments = parser.parse_args()
    ways = [PEFT, *(way for way in arguments.ways if way != PEFT)]
    rows: list[dict[str, Any]] = []
    for shape in arguments.shape:
        for lengths in arguments.lengths:
            rows += measure(shape, lengths, arguments.rounds, ways, memory=not arguments.no_memory)
    show(rows)
    write(arguments.name, command_line("step"), rows, prefix=PREFIX)


def measure(shape: str, lengths: str, rounds: int, ways: list[str], *, memory: bool) -> list[dict[str, Any]]:
    """One row a way: milliseconds, the ratio to peft's prefix tuning, and peak memory."""
    batch = draw(lengths)
    times = interleave({way: step_of(way, shape, batch) for way in ways}, rounds)
    base = statistics.median(times[PEFT])
    rows = []
    for way, values in times.items():
        middle = statistics.median(values)
        row = {"shape": shape, "lengths": lengths, "way": way, "ms": middle, "quartiles": spread(values)}
        row |= {"peft prefix / this": base / middle, "all ms": values}
        if memory:
            whole, above = peak(way, shape, lengths)
            row |= {"peak MB": round(whole / 1e6), "of them above the model": round(above / 1e6)}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
