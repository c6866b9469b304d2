"""What grows with what: ``python -m benchmarks.growth``. Random weights of t5-small's shape.

Source tokens T from 32 to 512 and prefix tokens S from 1 to 100: milliseconds and peak memory of a step, ours against
peft's prefix tuning. Examples N: seconds and bytes of the activation cache.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks.memory import peak
from benchmarks.setting import (
    BEST,
    PEFT,
    PREFIX,
    SHAPES,
    Words,
    build,
    draw,
    interleave,
    show,
    spread,
    step_of,
    write,
)
from mmpt.cache.activations import compute
from mmpt.methods import parse
from mmpt.models.backbone import Backbone
from mmpt.models.engine import build_engine


def main() -> None:
    """Measure all three, print tables, and write ``benchmarks/results/growth.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="t5_small")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    shape, rounds = arguments.shape, arguments.rounds
    rows = [row for tokens in (32, 64, 128, 256, 512) for row in against_peft(shape, rounds, tokens, PREFIX)]
    show(rows)
    more = [row for prefix in (1, 10, 30, 100) for row in against_peft(shape, rounds, 96, prefix)]
    show(more)
    examples = [of_examples(shape, number) for number in (64, 256, 1024)]
    show(examples)
    command = f"python -m benchmarks.growth --shape {shape} --rounds {rounds}"
    write("growth", command, rows + more, examples=examples)


def against_peft(shape: str, rounds: int, tokens: int, prefix: int) -> list[dict[str, Any]]:
    """Two rows, peft's and ours, for T and S."""
    batch = draw("fixed", tokens)
    times = interleave({way: step_of(way, shape, batch, prefix) for way in (PEFT, BEST)}, rounds)
    base = statistics.median(times[PEFT])
    rows = []
    for way, values in times.items():
        middle = statistics.median(values)
        row = {"T": tokens, "S": prefix, "way": way, "ms": middle, "quartiles": spread(values)}
        whole, above = peak(way, shape, str(tokens), prefix)
        memory = {"peak MB": round(whole / 1e6), "of them above the model": round(above / 1e6)}
        rows.append({**row, "peft prefix / this": base / middle, **memory, "all ms": values})
    return rows


def of_examples(shape: str, number: int) -> dict[str, Any]:
    """Seconds and bytes to cache N examples of RTE's lengths, in batches of 64 of similar length."""
    batch = draw("rte", rows=number)
    backbone = Backbone(build(shape, "mmpt_sdpa"), Words(), "", "random", "auto")  # type: ignore[arg-type]
    model = build_engine(backbone, parse("multimask", {"num_virtual_tokens": PREFIX})).eval()
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    parts = []
    for first in range(0, number, 64):
        longest = max(lengths[first : first + 64])
        part = {name: batch[name][first : first + 64, :longest] for name in ("input_ids", "attention_mask")}
        parts.append((range(first, min(first + 64, number)), part))
    began = time.perf_counter()
    activations = compute(model, lengths, parts)
    seconds = time.perf_counter() - began
    size = activations.states.numel() * activations.states.element_size()
    return {"N": number, "seconds": seconds, "MB": size / 1e6, "ms an example": 1000 * seconds / number}


if __name__ == "__main__":
    main()
