"""Where the time of our best step goes: ``python -m benchmarks.operators``.

The ten operators with most time of their own, forwards and backwards, of a step with cached activations and absorbed
cross attention at RTE's lengths; the operations that PyTorch counts in it; and the rate that follows, beside the
machine's measured matrix-multiply peak.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.setting import BEST, SHAPES, draw, interleave, peak_gflops, show, step_of, write


def main() -> None:
    """Measure both shapes, print tables, and write ``benchmarks/results/operators.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    rates, rows = [], []
    for shape in SHAPES:
        rate, top = measure(shape)
        rates.append(rate)
        rows += top
    show(rates)
    show(rows)
    write("operators", "python -m benchmarks.operators", rows, rates=rates)


def measure(shape: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Time, operations and rate of a step, and its ten most expensive operators."""
    step = step_of(BEST, shape, draw("rte"))
    peak = peak_gflops()
    milliseconds = statistics.median(interleave({"step": step}, rounds=8, warm=2)["step"])
    with FlopCounterMode(display=False) as counter:
        step()
    work = counter.get_total_flops() / 1e9
    achieved = 1000 * work / milliseconds
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(3):
            step()
    found = sorted(profiled.key_averages(), key=lambda entry: -entry.self_cpu_time_total)
    total = sum(entry.self_cpu_time_total for entry in found)
    top = [
        {
            "shape": shape,
            "operator": entry.key,
            "% of the time": 100 * entry.self_cpu_time_total / total,
            "calls a step": entry.count // 3,
        }
        for entry in found[:10]
    ]
    rate = {"shape": shape, "ms a step": milliseconds, "GFLOP": work, "GFLOP/s": achieved, "peak GFLOP/s": peak}
    return {**rate, "% of the peak": 100 * achieved / peak}, top


if __name__ == "__main__":
    main()
