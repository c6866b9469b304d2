"""One training step, ours against peft: ``python -m benchmarks.step --out benchmarks/results/step.json``.

All ways train on the same batch of random tokens and the same random weights (speed doesn't depend on their values),
in float32, AdamW included. Rounds are interleaved; the figure is the median, the spread the quartiles. Lengths are
all T=96, or spread over the quantiles of RTE's train set (words of premise and hypothesis times 1.35 pieces, plus 12
for the template).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from mmpt.cache.activations import compute
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import Backbone

SHAPES: dict[str, dict[str, int]] = {
    "t5_small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "t5_base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
TOKENS, BATCH, PREFIX = 96, 32, 10
RTE_WORDS = [
    (0.0, 10.0),
    (0.05, 20.0),
    (0.25, 31.0),
    (0.5, 41.0),
    (0.75, 63.0),
    (0.95, 119.0),
    (0.99, 151.0),
    (1.0, 200.0),
]
WAYS = ["peft prefix", "peft lora", "full fine-tuning", "ours, plain", "ours, encoder sites"]
WAYS += ["ours, cached", "ours, cached and absorbed"]
Step = Callable[[], Tensor]


class Words:
    """A stand-in tokenizer; nothing is initialised from words here."""

    all_special_ids = (0, 1)

    def __len__(self) -> int:
        """Size of T5's vocabulary."""
        return 32128


def build(shape: str, attention: str) -> Any:
    """A random T5 of a shape, frozen."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("t5", **SHAPES[shape], vocab_size=32128, decoder_start_token_id=0)
    model = AutoModelForSeq2SeqLM.from_config(config, attn_implementation=attention)
    return model.requires_grad_(False).eval()


def words_at(share: float) -> float:
    """Words of an RTE training example at a quantile, linear between the measured ones."""
    for (low, first), (high, last) in pairwise(RTE_WORDS):
        if share <= high:
            return first + (last - first) * (share - low) / (high - low)
    return RTE_WORDS[-1][1]


def draw(lengths: str) -> dict[str, Tensor]:
    """A batch of random source tokens (B, T), and labels (B, U) of 2 to 4 tokens."""
    generator = torch.Generator().manual_seed(0)
    if lengths == "fixed":
        sizes = torch.full((BATCH,), TOKENS)
    else:
        share = (torch.randperm(BATCH, generator=generator) + 0.5) / BATCH
        sizes = torch.tensor([round(1.35 * words_at(float(value)) + 12) for value in share])
    sizes = sizes.sort().values  # as our collator does; the peers' time doesn't depend on it
    ids = torch.randint(3, 32000, (BATCH, int(sizes.max())), generator=generator)
    mask = (torch.arange(ids.shape[1])[None] < sizes[:, None]).long()
    labels = torch.randint(3, 32000, (BATCH, 4), generator=generator)
    labels[: BATCH // 2, 2:] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def stepper(model: nn.Module, batch: dict[str, Tensor], loss: Callable[[], Tensor]) -> Step:
    """One optimizer step as a function."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step() -> Tensor:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.detach()

    return step


def ours(shape: str, batch: dict[str, Tensor], cached: bool, cross: str, sites: list[str]) -> Step:
    """A step of our multi-mask prefix tuning."""
    backbone = Backbone(build(shape, "mmpt_sdpa"), Words(), "", "random", cross)  # type: ignore[arg-type]
    model = AdaptedModel.build(backbone, "multimask", {"sites": sites, "num_virtual_tokens": PREFIX}).train()
    given = dict(batch)
    if cached:
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        activations = compute(model, lengths, [(range(BATCH), batch)])
        given |= activations.batch(list(range(BATCH)), batch["input_ids"].shape[1])

    return stepper(model, batch, lambda: model(**given).loss)


def peers(shape: str, batch: dict[str, Tensor], kind: str) -> Step:
    """A step of peft's prefix tuning or LoRA, or of full fine-tuning."""
    from peft import LoraConfig, PrefixTuningConfig, TaskType, get_peft_model

    model: Any = build(shape, "sdpa")
    if kind == "peft prefix":
        model = get_peft_model(model, PrefixTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=PREFIX))
    elif kind == "peft lora":
        model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=8, target_modules=["q", "v"]))
    else:
        model.requires_grad_(True)
    return stepper(model, batch, lambda: model(**batch).loss)


def measure(shape: str, lengths: str, rounds: int, ways: list[str]) -> dict[str, list[float]]:
    """Milliseconds of each round of each way, interleaved; the first round warms up and is dropped."""
    batch = draw(lengths)
    decoder = ["decoder", "cross"]
    known: dict[str, Callable[[], Step]] = {
        "peft prefix": lambda: peers(shape, batch, "peft prefix"),
        "peft lora": lambda: peers(shape, batch, "peft lora"),
        "full fine-tuning": lambda: peers(shape, batch, "full"),
        "ours, plain": lambda: ours(shape, batch, False, "projected", decoder),
        "ours, encoder sites": lambda: ours(shape, batch, False, "auto", ["encoder", *decoder]),
        "ours, cached": lambda: ours(shape, batch, True, "projected", decoder),
        "ours, cached and absorbed": lambda: ours(shape, batch, True, "auto", decoder),
    }
    steps = {way: known[way]() for way in ways}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(rounds + 1):
        for way, step in steps.items():
            began = time.perf_counter()
            step()
            if round_:
                times[way].append(1000 * (time.perf_counter() - began))
    return times


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), **versions}


def main() -> None:
    """Measure, print a Markdown table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", choices=["fixed", "rte"], default=["fixed", "rte"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    arguments = parser.parse_args()
    ways = ["peft prefix", *(way for way in arguments.ways if way != "peft prefix")]
    found: dict[str, Any] = {"machine": machine(), "batch": BATCH, "prefix": PREFIX, "steps": []}
    print("| shape | lengths | way | ms a step, median | quartiles | peft prefix / this |\n|---|---|---|---|---|---|")
    for shape in arguments.shape:
        for lengths in arguments.lengths:
            times = measure(shape, lengths, arguments.rounds, ways)
            base = statistics.median(times["peft prefix"])
            for way, values in times.items():
                low, middle, high = statistics.quantiles(values, n=4)
                print(
                    f"| {shape} | {lengths} | {way} | {middle:.0f} | {low:.0f}-{high:.0f} | {base / middle:.2f} |",
                    flush=True,
                )
                row = {"shape": shape, "lengths": lengths, "way": way, "ms": values, "ratio": base / middle}
                found["steps"].append(row)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
