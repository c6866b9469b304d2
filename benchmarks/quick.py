"""The main figures in under three minutes: ``make bench-quick``. Few rounds; the last line is one JSON object.

Each value is peft's median over ours: the training step at RTE's lengths for t5-base's and t5-small's shape, an epoch
with evaluation for t5-small's (a part of the examples; a later epoch, and apart from it the first one with the
encoder's pass), and peak memory for t5-base's: above the loaded model, and of the whole process.
"""

from __future__ import annotations

import argparse
import json
import time

from benchmarks import epoch, step
from benchmarks.memory import peak
from benchmarks.setting import BEST, PEFT, machine, show


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    began = time.perf_counter()
    found: dict[str, float] = {}
    for shape, rounds in (("t5_base", 1), ("t5_small", 2)):
        rows = step.measure(shape, "rte", rounds, [PEFT, BEST], memory=False)
        show(rows)
        found[f"step_{shape}_vs_peft"] = rows[-1]["peft prefix / this"]
    rows = epoch.measure(examples=64, validation=32, rounds=1)
    show(rows)
    found["epoch_t5_small_vs_peft"] = rows[-1]["peft prefix / this"]
    found["first_epoch_t5_small_vs_peft"] = rows[1]["peft prefix / this"]
    theirs, ours = (peak(way, "t5_base", "rte", steps=1) for way in (PEFT, BEST))
    found["peak_memory_vs_peft"] = theirs[1] / ours[1]
    found["peak_process_memory_vs_peft"] = theirs[0] / ours[0]
    rounded = {name: round(value, 2) for name, value in found.items()}
    print(json.dumps({**rounded, "seconds": round(time.perf_counter() - began), "machine": machine()}))


if __name__ == "__main__":
    main()
