"""Whether bfloat16 for the frozen network costs points: ``python -m benchmarks.dtype``.

The bundled miniatures, three methods at the rates of ``sweep=compare`` and five seeds, each run with the network in
float32 and in bfloat16: one multirun in this process. A pair's difference is bfloat16 − float32 of the test score in
points; the interval is Student's t for the mean over pairs. Run directories are the record: a repeated command goes on,
and finished runs are only read. Besides, the cosine between the gradients of both types in a first step at t5-base's
shape (random weights, RTE's lengths); ``--cosine`` prints it alone. LoRA's A has no gradient there: B starts at zero.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.setting import Words, build, command_line, draw, show, write
from mmpt.cli import main as train
from mmpt.errors import MmptError, RunError
from mmpt.methods import parse
from mmpt.models.backbone import Backbone
from mmpt.models.engine import build_engine
from mmpt.report.load import load
from mmpt.report.stats import paired_t

TASKS = ["boolq", "cb", "copa", "multirc", "rte", "wic"]
METHODS = ["prefix", "multimask", "lora"]
DTYPES = ["float32", "bfloat16"]
SEEDS, ROWS = 5, 8  # the batch of the step has fewer rows than others: LoRA's gradients pass through the encoder
PERCENT = 100.0
QUICK = ["trainer.max_steps=2", "trainer.eval_strategy=no"]
QUICK += ["data.limit_train=64", "data.limit_validation=32", "data.limit_test=32"]


def pairs(root: Path, tasks: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row for each task, method and seed: the test scores in both types, in percent, and their difference.

    Raises:
        RunError: A run is missing, or two runs differ in more than the type.
    """
    found: dict[tuple[str, str, int | None], dict[str, float]] = defaultdict(dict)
    for run in load([root]).runs:
        if run.settings is None or (score := run.score("test")) is None:
            continue
        dtype, key = str(run.settings.flat.get("model.dtype")), (run.known("task"), run.known("method"), run.seed)
        if dtype in found[key]:
            raise RunError(f"{root} has two runs of task, method, seed {key} in {dtype}; give an empty --root")
        found[key][dtype] = PERCENT * score
    rows = []
    for key in [(task, method, seed) for task in tasks for method in METHODS for seed in seeds]:
        scores = found[key]
        if missing := [dtype for dtype in DTYPES if dtype not in scores]:
            raise RunError(f"{root} lacks task, method, seed {key} in {missing[0]}; run the same command again")
        names = dict(zip(("task", "method", "seed"), key, strict=True))
        rows.append({**names, **scores, "difference": scores["bfloat16"] - scores["float32"]})
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean difference in points with its 95 % interval: of each method, and of all pairs.

    ``sd of seeds`` is the standard deviation of a task's float32 scores over seeds, mean over tasks.
    """
    lines = []
    for name in [*METHODS, "all"]:
        chosen = [row for row in rows if name in (row["method"], "all")]
        tested = paired_t([row["difference"] for row in chosen])
        by_setting: dict[tuple[str, str], list[float]] = defaultdict(list)
        for row in chosen:
            by_setting[row["task"], row["method"]].append(row["float32"])
        spreads = [statistics.stdev(scores) for scores in by_setting.values() if len(scores) > 1]
        means = {dtype: statistics.fmean(row[dtype] for row in chosen) for dtype in DTYPES}
        line = {"method": name, "pairs": len(chosen), **means, "difference": tested.difference}
        line |= {"low": tested.low, "high": tested.high, "p": tested.p}
        lines.append({**line, "sd of seeds": statistics.fmean(spreads) if spreads else None})
    return lines


def gradient(method: str, dtype: str, shape: str, rows: int) -> Tensor:
    """The gradient of a method's first step: all that trains in one vector (float64). Weights are rounded."""
    network = build(shape, "mmpt_sdpa").to(getattr(torch, dtype))
    torch.manual_seed(1)
    model = build_engine(Backbone(network, Words(), "", "random"), parse(method, {})).train()  # type: ignore[arg-type]
    torch.manual_seed(2)  # of the router's noise
    model(**draw("rte", rows=rows)).loss.backward()
    found = [value.grad for value in model.parameters() if value.requires_grad]
    return torch.cat([torch.zeros(0) if grad is None else grad.flatten() for grad in found]).double()


def cosines(shape: str = "t5_base", rows: int = ROWS) -> list[dict[str, Any]]:
    """For each method the cosine between the gradients, and how their lengths compare."""
    lines = []
    for method in METHODS:
        exact, rounded = (gradient(method, dtype, shape, rows) for dtype in DTYPES)
        cosine = torch.cosine_similarity(exact, rounded, dim=0).item()
        lengths = (rounded.norm() / exact.norm()).item()
        line = {"method": method, "shape": shape, "cosine": f"{cosine:.5f}"}
        lines.append({**line, "length, bfloat16 / float32": f"{lengths:.4f}"})
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, print tables, and write ``benchmarks/results/dtype.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="1 to this number")
    parser.add_argument("--root", type=Path, default=Path("runs/dtype"), help="of the run directories")
    parser.add_argument("--quick", action="store_true", help="two steps on few examples and a tiny shape: does it run?")
    parser.add_argument("--name", default="dtype", help="of the file in benchmarks/results")
    parser.add_argument("--cosine", action="store_true", help="print only the cosine between gradients")
    arguments = parser.parse_args(argv)
    shape = "tiny" if arguments.quick else "t5_base"
    if arguments.cosine:
        show(cosines(shape))
        return 0
    seeds = range(1, arguments.seeds + 1)
    words = [f"task={','.join(arguments.tasks)}", "setting=" + ",".join(f"compare/{name}" for name in METHODS)]
    words += [f"seed={','.join(map(str, seeds))}", f"model.dtype={','.join(DTYPES)}", f"run.root='{arguments.root}'"]
    words += QUICK if arguments.quick else []
    if code := train(["sweep=compare", *words]):
        return code
    try:
        rows = pairs(arguments.root, arguments.tasks, seeds)
    except MmptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    lines, cosine = summary(rows), cosines(shape)
    show(lines)
    show(cosine)
    write(arguments.name, command_line("dtype"), rows, batch=16, summary=lines, cosine=cosine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
