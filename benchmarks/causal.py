"""A training step of models with one stack against peft: ``python -m benchmarks.causal``.

Shapes of GPT-2, Gemma 3 270M and BERT-base with random weights, RTE's lengths, labels of 2 and 4 tokens (decoder-only)
or a classification head (BERT). peft's prefix tuning and LoRA train in float32, its default, and in the type that
``model.dtype=auto`` means here. Multi-mask prefixes are in all layers, or in the last 4, which continue from cached
states.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.setting import (
    PREFIX,
    VOCABULARY,
    Step,
    Words,
    command_line,
    draw,
    interleave,
    show,
    spread,
    stepper,
    write,
)
from mmpt.cache.activations import compute
from mmpt.data.collate import IGNORED
from mmpt.methods import parse
from mmpt.models.backbone import Backbone
from mmpt.models.engine import build_engine
from mmpt.models.parts import head_parameters
from mmpt.utils.machine import fast_dtype

LABELS = torch.tensor([[5, 1, IGNORED, IGNORED], [6, 7, 8, 1]])
GEMMA: dict[str, Any] = {
    **{"vocab_size": 262144, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18},
    **{"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512},
}
# name: (type of model, shape beside the type's own defaults, module names of LoRA's queries and values)
SHAPES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "gpt2": ("gpt2", {}, ["c_attn"]),
    "gemma_3_270m": ("gemma3_text", GEMMA, ["q_proj", "v_proj"]),
    "bert_base": ("bert", {"vocab_size": VOCABULARY}, ["query", "value"]),
}


def main() -> None:
    """Measure, print, and write ``benchmarks/results/causal.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--layers", type=int, help="of each model, for a trial of the benchmark itself")
    arguments = parser.parse_args()
    fast, why = fast_dtype()
    print(f"model.dtype=auto means {fast}: {why}", flush=True)
    rows = []
    for shape in arguments.shapes:
        rows += measure(shape, arguments.batch, arguments.rounds, fast, arguments.layers)
    show(rows)
    write("causal", command_line("causal"), rows, batch=arguments.batch, dtype=fast)


def measure(shape: str, examples: int, rounds: int, fast: str, layers: int | None = None) -> list[dict[str, Any]]:
    """One row a way."""
    batch = draw("rte", rows=examples)
    batch["labels"] = LABELS[torch.arange(examples) % 2] if shape != "bert_base" else torch.arange(examples) % 2
    steps: dict[tuple[str, str], Step] = {}
    for dtype in dict.fromkeys(("float32", fast)):
        network = build(shape, dtype, layers)
        for way in ("peft prefix", "peft lora"):
            steps[way, dtype] = _peer(way, shape, copy.deepcopy(network), batch)
        steps["ours, all layers", dtype] = _ours("all", copy.deepcopy(network), batch)
        steps["ours, last_4, cached", dtype] = _ours("last_4", network, batch)
    times = interleave(steps, rounds)  # type: ignore[type-var]
    medians = {way: statistics.median(values) for way, values in times.items()}
    return [
        {
            **{"shape": shape, "way": way, "dtype": dtype, "ms": round(medians[way, dtype])},
            "quartiles": spread(times[way, dtype]),
            "peft prefix / this": round(medians["peft prefix", "float32"] / medians[way, dtype], 2),
            "peft prefix of this dtype / this": round(medians["peft prefix", dtype] / medians[way, dtype], 2),
            "peft lora of this dtype / this": round(medians["peft lora", dtype] / medians[way, dtype], 2),
        }
        for way, dtype in steps
    ]


def build(shape: str, dtype: str, layers: int | None) -> Any:
    """A random network of a shape, frozen, without dropout."""
    torch.manual_seed(0)
    model_type, more, _ = SHAPES[shape]
    config = AutoConfig.for_model(model_type, **more | ({} if layers is None else {"num_hidden_layers": layers}))
    config.pad_token_id = 0
    kind = AutoModelForSequenceClassification if model_type == "bert" else AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation="mmpt_sdpa", dtype=getattr(torch, dtype))
    return model.requires_grad_(False).eval()


def _peer(way: str, shape: str, model: Any, batch: Mapping[str, Tensor]) -> Step:
    """A step of peft's; a decoder-only model reads the labels after the sources, padded at the end."""
    task = TaskType.SEQ_CLS if shape == "bert_base" else TaskType.CAUSAL_LM
    options: PeftConfig = PrefixTuningConfig(task_type=task, num_virtual_tokens=PREFIX)
    if way == "peft lora":
        options = LoraConfig(task_type=task, r=8, target_modules=SHAPES[shape][2])
    model.set_attn_implementation("sdpa")
    model = get_peft_model(model, options)
    if task == TaskType.CAUSAL_LM:
        batch = joined(batch)
    return stepper(model, lambda: model(**batch).loss)


def joined(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows of a source and its label (B, T + U), with labels only where the label is."""
    rows = []
    for ids, mask, label in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        rows.append((ids[mask.bool()], label[label != IGNORED]))
    width = max(len(source) + len(label) for source, label in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, (source, label) in enumerate(rows):
        end = len(source) + len(label)
        ids[row, :end], mask[row, :end] = torch.cat([source, label]), 1
        labels[row, len(source) : end] = label
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _ours(layers: str, network: Any, batch: dict[str, Tensor]) -> Step:
    fresh = tuple(head_parameters(network))
    backbone = Backbone(network, Words(), "", "random", fresh=fresh)  # type: ignore[arg-type]
    options = {"num_virtual_tokens": PREFIX, **({} if layers == "all" else {"layers": layers})}
    model = build_engine(backbone, parse("multimask", options)).train()
    batch = {**batch, "labels": batch["labels"].view(len(batch["labels"]), -1)}
    if layers == "all":
        return stepper(model, lambda: model(**batch).loss)
    rows = range(len(batch["labels"]))
    lengths = batch["attention_mask"].sum(dim=1)
    if batch["labels"].shape[1] > 1:  # a decoder-only model's labels are read too
        read = LABELS[:, :-1].masked_fill(LABELS[:, 1:] == IGNORED, IGNORED)
        batch["continuations"] = read.expand(len(rows), -1, -1)
        lengths = lengths + (read != IGNORED).sum()
    activations = compute(model, lengths.tolist(), [(rows, batch)])
    # the batch is gathered in every step, as the collator does
    return stepper(model, lambda: model(**batch, **activations.batch(rows)).loss)


if __name__ == "__main__":
    main()
