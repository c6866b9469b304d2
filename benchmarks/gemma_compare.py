"""Compare methods on Gemma 3 270M and real data: ``python -m benchmarks.gemma_compare MODEL DATA``.

MODEL is what ``python -m benchmarks.gemma MODEL`` wrote, DATA a folder with the official SuperGLUE files. Each task is
asked as a question (``benchmarks/questions``). RTE and CB are used as published. BoolQ and WiC are made of the official
validation file alone (:func:`resplit`): 2,000 and 338 training examples, so that a trial stays short. On CB, every rate
of a method's small grid trains with seed 1, and one rate more if the highest is best; the rate with the best validation
score then trains with the other seeds, and on the other tasks. All trials of a task have the same number of steps and
the same batches: 100, on ``mix`` 200, on ``rte_long`` and ``boolq_long`` 600. The task ``mix`` is one adapter for all
four, with as many examples of each.
Each finished trial is written to ``benchmarks/results/gemma/`` at once; the same command continues after an
interruption. Two processes may share the work, if ``--only`` gives them different pairs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.report.stats import t_interval

RESULTS = Path(__file__).parent / "results" / "gemma"
STEPS = ["trainer.max_steps=100", "trainer.eval_strategy=steps", "trainer.eval_steps=25", "trainer.save_steps=50"]
COMMON = ["model=gemma_3_270m", "data=local", "logger=none", "trainer.group_by_length=true", "cache=auto"]
COMMON += ["trainer.per_device_train_batch_size=16", "evaluation.batch_size=32", "trainer.loss=label_ranking", *STEPS]
QUESTIONS = Path(__file__).parent / "questions"  # tasks as questions, which a language model answers better
TASKS = {  # with the text that prefixes start from, and more settings
    "rte": ("Is it true? Answer True or False.", []),
    "cb": ("Is it true? Answer True, False or Neither.", ["data.validation_fraction=0.3"]),
    "wic": ("Has the word the same meaning? Answer Yes or No.", []),
    "boolq": ("Read the passage and answer Yes or No.", ["data.limit_train=2000"]),
}
MIX = [f"mix.tasks=[{','.join(f'{task}_question' for task in TASKS)}]", "mix.sampling=equal"]
MIX += ["data.validation_fraction=0.3", "data.limit_train=700", "data.limit_validation=100", "data.limit_test=300"]
MIX += ["trainer.max_steps=200", "trainer.eval_steps=50"]
TASKS["mix"] = ("Answer with True, False, Neither, Yes or No.", MIX)  # one adapter for all
LONG = ["trainer.max_steps=600", "trainer.eval_steps=100", "trainer.save_steps=100"]
TASKS |= {f"{task}_long": (TASKS[task][0], [*TASKS[task][1], *LONG]) for task in ("rte", "boolq")}  # more steps
DEEP = ["method.layers=last_6", "method.init=text"]
RESPLIT = {"BoolQ": ("passage", 1000), "WiC": ("word", 300)}  # folder: field that stays on one side, test examples
TUNED = "cb"  # the task whose validation chooses the rates
RATES = {"low": 0.1, "mid": 0.3, "high": 1.0, "top": 3.0}  # times the rates below
METHODS: dict[str, tuple[list[str], dict[str, float]]] = {
    "zero_shot": (
        ["method=lora", "trainer.max_steps=1", "trainer.eval_strategy=no"],
        {"lora": 1e-12},
    ),  # changes nothing
    "prefix": (["method=prefix", "method.num_virtual_tokens=11", *DEEP], {"prefix": 0.05}),
    "multimask": (["method=multimask", *DEEP], {"prefix": 0.05, "masks": 0.05, "router": 0.0005}),
    "peft_prefix": (["method=prefix", "method.num_virtual_tokens=11", "method.init=text"], {"prefix": 0.05}),
    "lora": (["method=lora", "method.layers=last_6"], {"lora": 0.001}),
    "full": (["method=full", "method.layers=last_6", "trainer.bf16=true"], {"backbone": 0.0001}),
    "prompt": (["method=prompt", "method.init=text"], {"prompts": 0.3}),
    "smop": (["method=smop", "method.init=vocab"], {"prompts": 0.3, "router": 0.0005}),
}
WHOLE = ["method.num_virtual_tokens=11", "method.mask_init_mean=5"]
CHANGES: dict[str, tuple[list[str], dict[str, float]]] = {  # to multimask
    "open": (["method.mask_init_mean=5"], {}),
    "calm": (["method.perturb_router=false", "method.router_dropout=0"], {}),
    "longer": (["method.num_virtual_tokens=11"], {}),
    "whole": (WHOLE, {}),
    "apart": (["method.mask_init=apart", "method.routing=straight_through"], {}),
    "below": (["method.router_input=layer_below"], {}),
    "slow": ([], {"masks": 0.005}),
    "routed": (
        ["method.mask_init=apart", "method.routing=straight_through", "method.num_virtual_tokens=11"],
        {"router": 0.007},
    ),
}


def _changed(words: list[str], rates: dict[str, float]) -> tuple[list[str], dict[str, float]]:
    return [*METHODS["multimask"][0], *words], METHODS["multimask"][1] | rates


METHODS |= {f"multimask_{name}": _changed(*change) for name, change in CHANGES.items()}
METHODS["multimask_steady"] = _changed(WHOLE, {"masks": 0.005})  # the changes that gained most, with rates of its own
APART = ["method.num_virtual_tokens=11", "method.mask_init=apart", "method.router_standardize=true"]
APART += ["method.perturb_router=false"]  # what separates the tasks of the bundled mixture (docs/mixtures.md)
METHODS["multimask_standardized"] = _changed(APART, {"router": 0.1})
RATE_OF = {f"multimask_{name}": "multimask" for name in CHANGES}  # methods without a grid, and whose rate they have
RATE_OF["multimask_standardized"] = "prefix"
PROGRAMS = {"peft_prefix": ["-m", "benchmarks.gemma_peft"]}  # of methods that train.py does not have; one task alone
SEEDS = dict.fromkeys(METHODS, range(1, 4)) | dict.fromkeys(["prefix", "multimask", "multimask_steady"], range(1, 6))
PAIRS = [(task, method) for method in METHODS for task in TASKS if (task, method) != ("mix", "peft_prefix")]


@dataclass(frozen=True)
class Trial:
    """One run."""

    task: str
    method: str
    rate: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.task}-{self.method}-{self.rate}-s{self.seed}"

    def words(self) -> list[str]:
        """What train.py is told about it, without paths."""
        own, rates = METHODS[self.method]
        text, limits = TASKS[self.task]
        own = [*own, f"method.init_text='{text}'"] if "method.init=text" in own else [*own]
        factor = RATES.get(self.rate, 1.0)
        own += [f"method.lr.{group}={rate * factor:g}" for group, rate in rates.items()]
        task = "mix" if self.task == "mix" else f"{self.task.removesuffix('_long')}_question"
        return [f"task={task}", *COMMON, *limits, *own, f"seed={self.seed}"]

    def result(self) -> dict[str, Any] | None:
        """What was written about it; None where it has not run."""
        file = RESULTS / f"{self.name}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def trials(task: str, method: str) -> Iterator[Trial]:
    """The trials of a task and method; which come after the grid depends on its results."""
    if method == "zero_shot":
        yield Trial(task, method, "mid", 1)
        return
    tuned = RATE_OF.get(method, method)
    own = task == TUNED and tuned == method
    scored: dict[str, float] = {}
    for rate in RATES:
        if rate == "top" and max(scored, key=scored.__getitem__, default="") != "high":
            continue
        one = Trial(TUNED, tuned, rate, 1)
        if own:
            yield one
        if (result := one.result()) is None:
            return
        scored[rate] = result["scores"]["validation"][result["metric"]]
    best = max(scored, key=scored.__getitem__)
    yield from (Trial(task, method, best, seed) for seed in SEEDS[method] if seed > 1 or not own)


def resplit(data: Path, root: Path) -> Path:
    """A folder in ``root`` with the tasks' files, those of :data:`RESPLIT` divided anew; written once.

    The rows of the official validation file are ordered by the SHA-256 of the field, which stays on one side. The last
    rows, at least as many as :data:`RESPLIT` says, are the test.
    """
    out = root / "data"
    if out.is_dir():
        return out
    root.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=root))
    for name in ("RTE", "CB", *RESPLIT):
        (part / name).mkdir(parents=True)
        for file in ("train.jsonl", "val.jsonl"):
            shutil.copyfile(data / name / file, part / name / file)
    for name, (field, test) in RESPLIT.items():
        lines = (data / name / "val.jsonl").read_text(encoding="utf-8").splitlines()
        marked = sorted((hashlib.sha256(json.loads(line)[field].encode()).hexdigest(), line) for line in lines)
        edge = len(marked) - test
        while marked[edge - 1][0] == marked[edge][0]:
            edge -= 1
        for file, chosen in (("train.jsonl", marked[:edge]), ("val.jsonl", marked[edge:])):
            (part / name / file).write_text("\n".join(line for _, line in chosen) + "\n", encoding="utf-8")
    try:
        part.replace(out)
    except OSError:  # another process was faster
        shutil.rmtree(part)
    return out


def run(trial: Trial, model: Path, data: Path, root: Path) -> bool:
    """Run a trial and write its result; whether it succeeded."""
    directory = root / trial.name
    words = [*trial.words(), f"model.path={model}", f"data.dir={data}", f"run.dir={directory}"]
    program = PROGRAMS.get(trial.method, ["train.py"])
    if subprocess.run([sys.executable, *program, f"--config-dir={QUESTIONS}", *words], check=False).returncode:
        return False
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    lines = (directory / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    result["correct"] = "".join(str(int(json.loads(line)["correct"])) for line in lines)  # by test example
    metrics = directory / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    routes = [{key: value for key, value in json.loads(line).items() if key.startswith("routes/")} for line in lines]
    result |= {"routes": found[-1]} if (found := [each for each in routes if each]) else {}  # at the last evaluation
    result["data"].pop("origin", None)
    words = ["--config-dir=benchmarks/questions", *trial.words(), "model.path=MODEL", "data.dir=DATA"]
    result["command"] = shlex.join(["python", *program, *words])
    file = RESULTS / f"{trial.name}.json"
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
    return True


def scores(task: str, method: str) -> dict[int, float]:
    """Test scores in points by seed, at the rate that validation chose."""
    chosen = list(trials(task, method))
    rate = chosen[-1].rate if chosen else None
    found = {one.seed: result for one in chosen if one.rate == rate and (result := one.result())}
    return {seed: 100 * result["scores"]["test"][result["metric"]] for seed, result in found.items()}


def table() -> str:
    """Test scores in points by task and method, and the mean difference of multimask and prefix over seeds."""
    lines = ["| method | " + " | ".join(TASKS) + " |", "|---" * (len(TASKS) + 1) + "|"]
    for method in METHODS:
        cells = []
        for task in TASKS:
            found = list(scores(task, method).values())
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{statistics.fmean(found):.1f}{spread} (n = {len(found)})" if found else "–")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    for task in TASKS:
        ours, base = scores(task, "multimask"), scores(task, "prefix")
        differences = [ours[seed] - base[seed] for seed in ours if seed in base]
        mean, low, high = t_interval(differences or [math.nan])
        if low is not None:
            lines.append(f"{task}: multimask - prefix {mean:+.1f} [{low:+.1f}, {high:+.1f}], {len(differences)} seeds")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--root", type=Path, default=Path("runs/gemma"), help="where run directories lie")
    parser.add_argument("--only", metavar="TASK,METHOD", nargs="+", help="these pairs, in this order")
    parser.add_argument("--table", action="store_true", help="print the table of what there is, and run nothing")
    chosen = parser.parse_args(arguments)
    pairs = [tuple(pair.split(",")) for pair in chosen.only or ()] or PAIRS
    if wrong := [pair for pair in pairs if pair not in PAIRS]:
        parser.error(
            f"--only {','.join(wrong[0])}: choose a task of {', '.join(TASKS)} and a method of {', '.join(METHODS)}"
        )
    RESULTS.mkdir(parents=True, exist_ok=True)
    failed = 0
    for task, method in () if chosen.table else pairs:
        data = resplit(chosen.data.absolute(), chosen.root.absolute())
        for trial in trials(task, method):
            if trial.result() is None:
                failed += not run(trial, chosen.model.absolute(), data, chosen.root.absolute())
    print(table())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
