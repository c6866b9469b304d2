"""What a router can tell tasks by, in the mean word embeddings that it reads.

    python -m benchmarks.task_means MODEL DATA

MODEL and DATA are those of :mod:`benchmarks.gemma_compare`, whose questions are asked. Of each task, 56 texts of the
official validation file are read. The command prints, and writes to ``benchmarks/results/task_means.json``: the length
of the mean of all texts, how far the mean of each task is from it, and for which share of one half of the texts the
nearest mean of the other half's tasks is that of their own.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.gemma_compare import QUESTIONS
from benchmarks.setting import RESULTS

EXAMPLES, LONGEST = 56, 256
TASKS = ("rte", "cb", "wic", "boolq")


def means(embeddings: Tensor, model: Path, data: Path) -> dict[str, Tensor]:
    """Mean word embeddings (N, d) of texts of each task."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = {}
    for name in TASKS:
        task = yaml.safe_load((QUESTIONS / "task" / f"{name}_question.yaml").read_text(encoding="utf-8"))
        lines = (data / task["directory"] / "val.jsonl").read_text(encoding="utf-8").splitlines()
        random.Random(0).shuffle(lines)
        texts = [task["template"].format(**json.loads(line)) for line in lines[:EXAMPLES]]
        ids = tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]
        found[name] = torch.stack([embeddings[row].float().mean(dim=0) for row in ids])
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    network: Any = AutoModelForCausalLM.from_pretrained(arguments.model)
    texts = means(network.get_input_embeddings().weight.detach(), arguments.model, arguments.data)
    common = torch.cat(list(texts.values())).mean(dim=0)
    half = EXAMPLES // 2
    known = torch.stack([rows[:half].mean(dim=0) for rows in texts.values()])
    nearest = [torch.cdist(rows[half:], known).argmin(dim=1) == place for place, rows in enumerate(texts.values())]
    centres = torch.stack([rows.mean(dim=0) for rows in texts.values()])
    away = (centres - common).norm(dim=1).tolist()
    found = {
        "length_of_common_mean": round(float(common.norm()), 3),
        "distance_of_task_means": {name: round(length, 3) for name, length in zip(texts, away, strict=True)},
        "nearest_mean_is_own": round(float(torch.cat(nearest).float().mean()), 3),
    }
    print(json.dumps(found))
    command = "python -m benchmarks.task_means MODEL DATA"
    text = json.dumps({"command": command, "texts_of_each_task": EXAMPLES, **found}, indent=1)
    (RESULTS / "task_means.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
