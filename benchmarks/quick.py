"""The main figures in about four minutes: ``make bench-quick``. Few rounds.

The last line is one JSON object, which ``benchmarks/results/quick.json`` has too. Each value is peft's median over
ours. ``*_vs_peft`` compares peft's default (float32) with ours (what ``model.dtype=auto`` means on this machine,
``dtype``); ``*_same_dtype`` has peft's network in that type. Steps are at RTE's lengths, epoch, sweep and cold start at
t5-small's shape with few examples, memory at t5-base's shape: above the loaded model, and of the whole process.
``gflops`` is the rate of our step at t5-base's shape.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from torch.utils.flop_counter import FlopCounterMode

from benchmarks import epoch, sweep
from benchmarks.memory import peak
from benchmarks.setting import BEST, PEFT, RESULTS, draw, interleave, machine, show, step_of
from mmpt.utils.machine import fast_dtype


def steps(shape: str, rounds: int, dtype: str) -> tuple[dict[str, float], float]:
    """Ratios of a training step, and the rate of ours in GFLOP/s."""
    batch = draw("rte")
    ours = step_of(BEST, shape, batch, dtype=dtype)
    ways = {"": step_of(PEFT, shape, batch), "_same_dtype": step_of(PEFT, shape, batch, dtype=dtype)}
    times = {way: statistics.median(ms) for way, ms in interleave({**ways, "ours": ours}, rounds).items()}
    with FlopCounterMode(display=False) as counter:
        ours()
    print(f"{shape}: peft float32 {times['']:.0f} ms, {dtype} {times['_same_dtype']:.0f}; ours {times['ours']:.0f}")
    rate = counter.get_total_flops() / 1e6 / times["ours"]
    return {f"step_{shape}_vs_peft{way}": times[way] / times["ours"] for way in ways}, rate


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    began = time.perf_counter()
    dtype, why = fast_dtype()
    print(f"model.dtype=auto means {dtype}: {why}", flush=True)
    found, rate = steps("t5_base", 1, dtype)
    found |= steps("t5_small", 3, dtype)[0]
    rows = epoch.measure(examples=64, validation=32, rounds=1)
    show(rows)
    found["epoch_t5_small_vs_peft"] = rows[-1]["peft prefix / this"]
    found["epoch_t5_small_vs_peft_same_dtype"] = rows[-1]["peft prefix of our dtype / this"]
    found["first_epoch_t5_small_vs_peft"] = rows[-2]["peft prefix / this"]
    for name, examples, grid in (("sweep_vs_peft", 128, sweep.GRID), ("cold_start_vs_peft", 64, [])):
        rows, _ = sweep.measure(examples, 32, 1, 1, ["one by one"], grid)
        show(rows)
        found[name] = rows[-1]["peft prefix / this"]
    theirs = peak(PEFT, "t5_base", "rte", steps=1)
    ours = peak(BEST, "t5_base", "rte", steps=1, dtype=dtype)
    found["peak_memory_vs_peft"] = theirs[1] / ours[1]
    found["peak_process_memory_vs_peft"] = theirs[0] / ours[0]
    rounded = {name: round(value, 2) for name, value in found.items()}
    more = {"dtype": dtype, "gflops": round(rate, 1), "seconds": round(time.perf_counter() - began)}
    line = json.dumps({**rounded, **more, "machine": machine()})
    (RESULTS / "quick.json").write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
