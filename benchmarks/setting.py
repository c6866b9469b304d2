"""What the benchmarks have in common: shapes, batches of RTE's lengths, one training step of each way, and timing.

All ways of a comparison train on the same random tokens and the same random weights (speed does not depend on their
values), in float32 with AdamW, in one process, interleaved. Figures are medians; the spread is the quartiles.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from mmpt.cache.activations import compute
from mmpt.methods import parse
from mmpt.models.backbone import Backbone
from mmpt.models.engine import build_engine

SHAPES: dict[str, dict[str, int]] = {
    "t5_small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "t5_base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
MORE_SHAPES = {  # for a GPU, and for a look whether a benchmark runs at all
    "t5_large": {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
    "tiny": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
}
TOKENS, BATCH, PREFIX = 96, 32, 10
VOCABULARY = 32128
# Quantiles of the number of words of premise and hypothesis in RTE's official training set (2,490 examples).
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
PEFT = "peft prefix"
BEST = "ours, cached and absorbed"
WAYS = [PEFT, "peft lora", "full fine-tuning", "ours, plain", "ours, encoder sites", "ours, cached", BEST]
Step = Callable[[], Tensor]
RESULTS = Path(__file__).parent / "results"


class Words:
    """A stand-in tokenizer; nothing is initialised from words here."""

    all_special_ids = (0, 1)

    def __len__(self) -> int:
        """Size of T5's vocabulary."""
        return VOCABULARY


def build(shape: str, attention: str, dtype: str = "float32", device: str = "cpu") -> Any:
    """A random T5 of a shape, frozen, without dropout: HF's Trainer would switch it on, which doubles a step here."""
    torch.manual_seed(0)
    more = {"vocab_size": VOCABULARY, "decoder_start_token_id": 0, "dropout_rate": 0.0}
    config = AutoConfig.for_model("t5", **(SHAPES | MORE_SHAPES)[shape], **more)
    with torch.device(device):
        model = AutoModelForSeq2SeqLM.from_config(config, attn_implementation=attention, dtype=getattr(torch, dtype))
    return model.requires_grad_(False).eval()


def rte_tokens(share: float) -> int:
    """Tokens of an RTE training example at a quantile, at most 256.

    The words there (linear between the measured quantiles) times 1.35 pieces, plus 12 for the template.
    """
    for (low, first), (high, last) in pairwise(RTE_WORDS):
        if share <= high:
            words = first + (last - first) * (share - low) / (high - low)
            break
    return min(256, round(1.35 * words + 12))


def draw(lengths: str, tokens: int = TOKENS, rows: int = BATCH) -> dict[str, Tensor]:
    """A batch of random source tokens (B, T) and labels (B, U), half of them of 2 tokens and half of 4.

    Args:
        lengths: ``fixed``: all of ``tokens``; ``rte``: spread over RTE's quantiles.
        tokens: Source tokens of each example, for ``fixed``.
        rows: Examples B.
    """
    generator = torch.Generator().manual_seed(0)
    if lengths == "fixed":
        sizes = torch.full((rows,), tokens)
    else:
        sizes = torch.tensor(
            [rte_tokens((place + 0.5) / rows) for place in range(rows)]
        )  # sorted, as our collator does
    ids = torch.randint(3, 32000, (rows, int(sizes.max())), generator=generator)
    mask = (torch.arange(ids.shape[1])[None] < sizes[:, None]).long()
    labels = torch.randint(3, 32000, (rows, 4), generator=generator)
    labels[torch.randperm(rows, generator=generator)[: rows // 2], 2:] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def step_of(way: str, shape: str, batch: Mapping[str, Tensor], prefix: int = PREFIX, dtype: str = "float32") -> Step:
    """One optimizer step of a way, as a function that returns the loss.

    Args:
        way: One of :data:`WAYS`.
        shape: One of :data:`SHAPES` or :data:`MORE_SHAPES`.
        batch: From :func:`draw`; the model is built on its device.
        prefix: Prefix tokens S.
        dtype: Of the network.
    """
    if not way.startswith("ours"):
        return _peer(way, shape, batch, prefix, dtype)
    model, gather = ours(way, shape, batch, prefix, dtype)
    return stepper(model, lambda: model(**gather()).loss)


def ours(
    way: str, shape: str, batch: Mapping[str, Tensor], prefix: int = PREFIX, dtype: str = "float32"
) -> tuple[nn.Module, Callable[[], dict[str, Tensor]]]:
    """A model of one of our ways, and a function that gathers its inputs; arguments as of :func:`step_of`."""
    sites = ["encoder", "decoder", "cross"] if way == "ours, encoder sites" else ["decoder", "cross"]
    cross = "projected" if way in ("ours, plain", "ours, cached") else "auto"
    network = build(shape, "mmpt_sdpa", dtype, str(batch["input_ids"].device))
    backbone = Backbone(network, Words(), "", "random", cross)  # type: ignore[arg-type]
    model = build_engine(backbone, parse("multimask", {"sites": sites, "num_virtual_tokens": prefix})).train()
    if "cached" not in way:
        return model, lambda: dict(batch)
    rows = len(batch["input_ids"])
    activations = compute(model, batch["attention_mask"].sum(dim=1).tolist(), [(range(rows), batch)])
    # the batch is gathered in every step, as the collator does
    return model, lambda: {**batch, **activations.batch(list(range(rows)))}


def _peer(way: str, shape: str, batch: Mapping[str, Tensor], prefix: int, dtype: str) -> Step:
    """A step of peft's prefix tuning or LoRA, or of full fine-tuning."""
    from peft import LoraConfig, PrefixTuningConfig, TaskType, get_peft_model

    model: Any = build(shape, "sdpa", dtype, str(batch["input_ids"].device))
    if way == PEFT:
        model = get_peft_model(model, PrefixTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=prefix))
    elif way == "peft lora":
        model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=8, target_modules=["q", "v"]))
    else:
        model.requires_grad_(True)
    return stepper(model, lambda: model(**batch).loss)


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """A step of AdamW on what trains of a model, for a function that gives the loss."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step() -> Tensor:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.detach()

    return step


def interleave(steps: Mapping[str, Callable[[], Any]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Milliseconds of each round of each way; the ways take turns, and the first ``warm`` rounds are dropped.

    On a GPU, a step must wait for the device itself.
    """
    times: dict[str, list[float]] = {way: [] for way in steps}
    for number in range(rounds + warm):
        for way, step in steps.items():
            began = time.perf_counter()
            step()
            if number >= warm:
                times[way].append(1000 * (time.perf_counter() - began))
    return times


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Quartiles as text, or all values where there are few."""
    if len(values) < 3:
        return ", ".join(f"{value:.{digits}f}" for value in values)
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low:.{digits}f}-{high:.{digits}f}"


def machine() -> dict[str, Any]:
    """What the figures depend on, with the matrix-multiply peak in GFLOP/s (float32, 2048 cubed, best of 10)."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    where = {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "peak_gflops": peak_gflops()}
    return {**where, **versions, "date": time.strftime("%Y-%m-%d")}


def peak_gflops() -> float:
    """Measured float32 matrix-multiply rate, 10^9 operations a second."""
    matrix = torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - began)
    return round(2 * 2048**3 / best / 1e9, 1)


def command_line(benchmark: str) -> str:
    """The command that runs a benchmark with the arguments of this process, as a shell takes it."""
    return shlex.join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]])


def write(name: str, command: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Write a benchmark's JSON to ``benchmarks/results/``, with the command and the machine."""
    content = {"command": command, "machine": machine(), "batch": BATCH, **more, "rows": list(rows)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a Markdown table; floats of two digits, lists left out."""
    names = [name for name, value in rows[0].items() if not isinstance(value, list)]
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names))
    for row in rows:
        shown = [f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name]) for name in names]
        print("| " + " | ".join(shown) + " |", flush=True)
