"""A training step of a decoder-only model with prefixes in its last layers: ``python -m benchmarks.causal``.

GPT-2's shape with random weights, RTE's lengths, one label of 2 and one of 4 tokens; without the activation cache, and
going on from cached states.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.setting import BATCH, Step, Words, command_line, draw, interleave, show, spread, stepper, write
from mmpt.cache.activations import compute
from mmpt.data.collate import IGNORED
from mmpt.methods import parse
from mmpt.models.backbone import Backbone
from mmpt.models.engine import build_engine

LABELS = torch.tensor([[5, 1, IGNORED, IGNORED], [6, 7, 8, 1]])


def main() -> None:
    """Measure, print, and write ``benchmarks/results/causal.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--last", type=int, nargs="+", default=[1, 4], help="layers with a prefix")
    arguments = parser.parse_args()
    rows = [row for last in arguments.last for row in measure(last, arguments.batch, arguments.rounds)]
    show(rows)
    write("causal", command_line("causal"), rows, batch=arguments.batch)


def measure(last: int, examples: int, rounds: int) -> list[dict[str, Any]]:
    """One row a way, plain and cached."""
    steps = {way: _step(last, examples, cached=way == "cached") for way in ("plain", "cached")}
    times = interleave(steps, rounds)
    medians = {way: statistics.median(values) for way, values in times.items()}
    return [
        {
            "prefixes": f"last {last} of 12",
            "way": way,
            "ms": round(medians[way]),
            "quartiles": spread(times[way]),
            "plain / this": round(medians["plain"] / medians[way], 2),
        }
        for way in steps
    ]


def _step(last: int, examples: int, cached: bool) -> Step:
    torch.manual_seed(0)
    network: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2"), attn_implementation="mmpt_sdpa")
    backbone = Backbone(network.requires_grad_(False).eval(), Words(), "", "random")  # type: ignore[arg-type]
    options = {"layers": f"last_{last}", "num_virtual_tokens": 10}
    model = build_engine(backbone, parse("multimask", options)).train()
    batch = {**draw("rte", rows=examples), "labels": LABELS[torch.arange(examples) % 2]}
    if not cached:
        return stepper(model, lambda: model(**batch).loss)
    read = LABELS[:, :-1].masked_fill(LABELS[:, 1:] == IGNORED, IGNORED)
    batch["continuations"] = read.expand(examples, -1, -1)
    lengths = (batch["attention_mask"].sum(dim=1) + (read != IGNORED).sum()).tolist()
    activations = compute(model, lengths, [(range(examples), batch)])
    # the batch is gathered in every step, as the collator does
    return stepper(model, lambda: model(**batch, **activations.batch(range(examples))).loss)


if __name__ == "__main__":
    main()
