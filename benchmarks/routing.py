"""What a run's router and masks do: load, entropy, how far the routes' masks differ, and whether any of it matters.

    python -m benchmarks.routing RUN_DIR...

Whether it matters is measured on the test split with the trained adapter: every example gets the mean route
probabilities of all (``constant``), or those of another example (``shuffled``). Where both score as the run itself
does, routing has no effect on its answers. Prints one JSON object a run.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import mmpt
from mmpt.bundled.tasks import records
from mmpt.data.sources import load_splits
from mmpt.predictor import Predictor
from mmpt.training.evaluate import Prepared
from mmpt.training.settings import check

Change = Callable[[Tensor], Tensor]  # of route probabilities (B, R)


def routing(place: Path) -> dict[str, Any]:
    """Measure a run.

    Args:
        place: A finished run directory.

    Returns:
        Plain values; nothing for a method without a router.
    """
    predictor = mmpt.load(place)
    method: Any = predictor.model.method
    if not hasattr(method, "router"):
        return {}
    config = check(yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8")))
    examples = load_splits(predictor.evaluator.task, config.data).test
    split = predictor.evaluator.prepare(examples)
    probs = predictor.evaluator.predict(predictor.model, split, "ranking").route_probs
    assert probs is not None
    chosen = probs.argmax(dim=-1).tolist()
    mean = probs.mean(dim=0)
    entropy = -(probs * probs.clamp_min(1e-12).log()).sum(dim=-1).mean()
    found: dict[str, Any] = {
        "task": config.task.name,
        "load": [round(chosen.count(route) / len(chosen), 3) for route in range(probs.shape[1])],
        "mean": [round(float(value), 3) for value in mean],
        "entropy_share": round(float(entropy) / math.log(probs.shape[1]), 3),  # 1: all routes alike, 0: one alone
        "knows_label": information(chosen, [example.target for example in examples]),
        "score": _score(predictor, split, lambda probs: probs),
        "score_constant": _score(predictor, split, lambda probs: mean.expand_as(probs)),
        "score_shuffled": _score(predictor, split, lambda probs: probs.roll(1, dims=0)),
    }
    if config.data.name == "bundled":
        parts = [row["part"] for row in records(config.task.name)["test"]]
        found["knows_part"] = information(chosen, parts)
    return found | masks(method.mask_values())


def information(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Share of the second's entropy that the first tells: mutual information over entropy, 0 to 1."""

    def entropy(values: Sequence[Hashable]) -> float:
        return -sum(count / len(values) * math.log(count / len(values)) for count in Counter(values).values())

    whole = entropy(second)
    joint = entropy(list(zip(first, second, strict=True)))
    return round((entropy(first) + whole - joint) / whole, 3) if whole else 0.0


def masks(found: dict[str, Tensor]) -> dict[str, float]:
    """How open the masks are on average, and how far an entry differs between routes (standard deviation)."""
    tables = [values.flatten(1) for values in found.values() if values.shape[0] > 1]
    if not tables:
        return {}
    table = torch.cat(tables, dim=1)  # (R, all entries)
    return {
        "mask_mean": round(float(table.mean()), 3),
        "mask_between_routes": round(float(table.std(dim=0).mean()), 3),
        "mask_between_entries": round(float(table.std(dim=1).mean()), 3),
    }


def _score(predictor: Predictor, split: Prepared, change: Change) -> float:
    """The primary metric with changed route probabilities."""
    router: Any = predictor.model.method
    handle = router.router.register_forward_hook(lambda module, given, probs: change(probs))
    try:
        predictions = predictor.evaluator.predict(predictor.model, split, "ranking")
    finally:
        handle.remove()
    scores = predictor.evaluator.scores(split, predictions, "ranking")
    return round(float(scores[predictor.evaluator.task.primary]), 4)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(json.dumps({"run": Path(argument).name, **routing(Path(argument))}), flush=True)
