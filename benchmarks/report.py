"""A report of many runs: ``python -m benchmarks.report --out benchmarks/results/report.json``.

Makes synthetic run directories (real configurations; scores are random and mean nothing) in a temporary folder, and
measures seconds and peak memory of ``python -m mmpt.report`` in a process of its own: the short table, a report in
every default format, and one with paired comparisons, which reads all predictions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from mmpt.config.compose import compose

CONF = Path(__file__).resolve().parents[1] / "conf"
TASKS = ("boolq", "cb", "copa", "multirc", "rte", "wic")
METHODS = ("full", "lora", "multimask", "prefix", "prompt", "smop")
SEEDS, EXAMPLES, EVALUATIONS = 5, 100, 20
WAYS = {
    "table": [],
    "all default formats": ["--published", "--out"],
    "all default formats, paired with a baseline": ["--published", "--baseline", "prefix", "--out"],
}


# The report, then its own peak of resident memory: what the system tells a parent includes the parent's, from the fork.
_CHILD = """
import re, resource, sys
from pathlib import Path
from mmpt.cli.app import main
code = main(sys.argv[2:], "report")
if sys.platform == "linux":
    peak = 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Path(sys.argv[1]).write_text(str(peak))
sys.exit(code)
"""


def make_runs(root: Path, runs: int) -> None:
    """Write synthetic run directories: tasks x methods x learning rates x seeds, one in a hundred failed.

    Args:
        root: Folder to fill.
        runs: How many.
    """
    rng = random.Random(0)
    for number, (config, task, method, seed) in enumerate(islice(_settings(), runs)):
        directory = root / f"synthetic-{number:05d}"
        directory.mkdir(parents=True)
        (directory / "config.yaml").write_text(f"{config}seed: {seed}\nexperiment: synthetic\n", encoding="utf-8")
        status: dict[str, Any] = {"status": "done", "started": "2026-01-01T00:00:00Z"}
        if number % 100 == 99:
            status |= {"status": "failed", "error": {"message": "synthetic failure"}}
        else:
            _finish(directory, task, method, seed, rng)
        (directory / "status.json").write_text(json.dumps(status), encoding="utf-8")


def _settings() -> Iterator[tuple[str, str, str, int]]:
    """Configurations as YAML without the seed, task, method, and seed."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    composed = {}
    for task in TASKS:
        for method in METHODS:
            config = compose([f"task={task}", f"method={method}"], CONF)
            composed[task, method] = OmegaConf.to_container(config, resolve=True)
    for step in count():
        for (task, method), config in composed.items():
            values: Any = json.loads(json.dumps(config))
            values["method"]["lr"] = {name: rate * 1.1**step for name, rate in values["method"]["lr"].items()}
            for name in ("seed", "experiment"):
                values.pop(name, None)
            text = yaml.dump(values, Dumper=dumper, sort_keys=False)
            yield from ((text, task, method, seed) for seed in range(1, SEEDS + 1))


def _finish(directory: Path, task: str, method: str, seed: int, rng: random.Random) -> None:
    """Write what a finished run has."""
    metric = "f1a" if task == "multirc" else "accuracy"
    answers = [rng.random() < 0.7 for _ in range(EXAMPLES)]
    result = {
        "status": "done", "task": task, "method": method, "model": "synthetic", "seed": seed, "metric": metric,
        "data": {"name": "synthetic", "bundled": True, "train": 1, "validation": 1, "test": EXAMPLES, "truncated": 0},
        "scores": {
            "validation": {metric: rng.random()}, "test": {metric: sum(answers) / EXAMPLES},
            "majority": {metric: 0.5}, "chance": None,
        },
        "parameters": {"trainable": 100 + len(method), "total": 1000, "bytes": 400, "groups": {"synthetic": 100}},
        "timing": {"step_ms_median": 9 + rng.random(), "train_s": 5.0, "total_s": 6.0, "examples_per_s": 100.0},
        "memory": {"peak_bytes": 5_000_000}, "steps": 20, "epochs": 2.5, "best_step": 16, "warnings": [],
        "config_fingerprint": directory.name, "data_fingerprint": task, "backbone_fingerprint": "synthetic",
        "versions": {"mmpt": "synthetic", "torch": "synthetic"},
    }  # fmt: skip
    (directory / "result.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    steps = range(1, EVALUATIONS + 1)
    lines = [{"step": step, "time": step, "validation/loss": 1 / step, f"validation/{metric}": 0.5} for step in steps]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows = [
        {"id": str(i), "source": f"synthetic example {i}", "target": "t", "correct": a} for i, a in enumerate(answers)
    ]
    (directory / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def measure(root: Path, arguments: list[str]) -> dict[str, float]:
    """Run the report in a process of its own.

    Args:
        root: Folder of run directories.
        arguments: What follows it on the command line.

    Returns:
        ``seconds`` by the clock, ``cpu_seconds``, and ``peak_mb`` of resident memory.

    Raises:
        RuntimeError: The report failed.
    """
    with tempfile.NamedTemporaryFile("r") as report:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, report.name, str(root), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=CONF.parent,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):  # 1: some of the runs failed, as they are made to
            raise RuntimeError(f"python -m mmpt.report ended with {process.returncode}")
        peak = int(report.read())
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mb": round(peak / 1e6, 1)}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="A report of many synthetic runs.")
    parser.add_argument("--runs", type=int, default=10_000, help="run directories to make (default 10000)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures and the machine there")
    arguments = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="mmpt-synthetic-"))
    try:
        make_runs(folder / "runs", arguments.runs)
        found = {}
        for name, words in WAYS.items():
            place = [str(folder / "out")] if "--out" in words else []
            found[name] = measure(folder / "runs", [*words, *place])
            print(f"{name}: {found[name]}", flush=True)
    finally:
        shutil.rmtree(folder)
    machine = {"platform": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    content = {
        "data": "synthetic",
        "runs": arguments.runs,
        "seeds": SEEDS,
        "examples": EXAMPLES,
        **machine,
        "ways": found,
    }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
