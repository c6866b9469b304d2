"""What storing the cached states in half precision changes: ``python -m benchmarks.cache_dtype``.

A prefix is trained on the bundled RTE miniature: for two epochs on the bundled backbone, for two steps on random
weights of t5-small's shape (its scores mean nothing, its arithmetic does). Then the test split's label words are ranked
with states stored in each type, and held against the states as computed (float32).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.setting import machine
from mmpt.cache.activations import Activations, compute, fetch, key_of
from mmpt.cache.store import Store
from mmpt.cli import CONF
from mmpt.config.compose import compose
from mmpt.config.schema import Config
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Task
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.engine import build_engine
from mmpt.training.evaluate import Evaluator, Prepared
from mmpt.training.settings import check

DTYPES = {"model (float32)": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
FRONTIERS = {
    "encoder output": {"sites": ["decoder", "cross"]},
    "entering the encoder's last layer": {"sites": ["encoder", "decoder", "cross"], "layers": "last_1"},
}


def trained(config: Config, backbone: Backbone, options: dict[str, Any], evaluator: Evaluator) -> AdaptedModel:
    """A prefix after two epochs."""
    torch.manual_seed(1)
    model = build_engine(backbone, parse("prefix", options))
    split = evaluator.prepare(load_splits(evaluator.task, config.data, 1).train)
    states = compute(model, split.lengths, evaluator.batches(split, torch.device("cpu")))
    split = replace(split, activations=states)
    optimizer = torch.optim.AdamW(model.method.parameters(), lr=0.03)
    model.train()
    for _ in range(2):
        for _, batch in evaluator.batches(split, torch.device("cpu")):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def likelihoods(model: AdaptedModel, evaluator: Evaluator, split: Prepared) -> Tensor:
    """Log-likelihood of each label word for each example, (N, C)."""
    found = torch.empty(len(split.features), len(evaluator.candidates))
    for rows, batch in evaluator.batches(split, torch.device("cpu")):
        found[rows] = model.rank(model.start(batch), evaluator.candidates)
    return found


def stored(model: AdaptedModel, fingerprint: str, evaluator: Evaluator, split: Prepared, name: str) -> Activations:
    """The test split's states, written to disk in a type and read back."""
    inputs = [feature["input_ids"] for feature in split.features]
    key = key_of(model, fingerprint, inputs, evaluator.cut(split), DTYPES[name])
    batches = evaluator.batches(split, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as directory:
        return fetch(Store(directory, 10), key, model, split.lengths, batches, DTYPES[name])


def measure(model_name: str, words: list[str]) -> list[dict[str, Any]]:
    """One row a frontier and type."""
    config = check(compose(["task=rte", f"model={model_name}", "logger=none", *words], CONF))
    backbone, rows = load_backbone(config.model), []
    evaluator = Evaluator(Task(config.task), backbone.tokenizer, config.evaluation, config.data.max_length, 1)
    test = evaluator.prepare(load_splits(evaluator.task, config.data, 1).test)
    for frontier, options in FRONTIERS.items():
        model = trained(config, backbone, options, evaluator)
        plain = likelihoods(model, evaluator, test)
        for name in DTYPES:
            states = stored(model, backbone.fingerprint, evaluator, test, name)
            found = likelihoods(model, evaluator, replace(test, activations=states))
            change = (found - plain).abs()
            rows.append(
                {
                    "model": model_name,
                    "frontier": frontier,
                    "dtype": name,
                    "max_change": change.max().item(),
                    "mean_change": change.mean().item(),
                    "changed_predictions": (found.argmax(-1) != plain.argmax(-1)).float().mean().item(),
                    "bytes": states.states.numel() * states.states.element_size(),
                    "examples": len(test.examples),
                }
            )
    return rows


def main() -> None:
    """Measure, print a Markdown table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cache_dtype.json")
    arguments = parser.parse_args()
    rows = measure("bundled", []) + measure("t5_small_random", ["data.limit_train=64", "data.limit_test=128"])
    print("| model | states | stored as | largest change | mean change | other predictions | MB |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        figures = f"{row['max_change']:.1e} | {row['mean_change']:.1e} | {row['changed_predictions']:.2%}"
        print(f"| {row['model']} | {row['frontier']} | {row['dtype']} | {figures} | {row['bytes'] / 1e6:.1f} |")
    arguments.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
