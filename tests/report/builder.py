"""Run directories as a training leaves them, with scores and answers of one's choice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    r"\input{x}",
    "a|b*c_d`e",
    "=1+1",
    "ünïcödé 模型",
)


def config(method: str = "prefix", seed: int = 1, task: str = "rte", **more: Any) -> dict[str, Any]:
    """A resolved configuration, shortened; dotted keys of ``more`` overwrite."""
    content: dict[str, Any] = {
        "task": {"name": task, "template": "rte sentence1: {premise}", "metric": "accuracy"},
        "method": {"name": method, "num_virtual_tokens": 10, "lr": {"prefix": 0.05}},
        "model": {"name": "bundled", "dtype": "float32", "attention": "sdpa"},
        "optimizer": {"name": "adafactor", "eps": 1e-8},
        "scheduler": {"name": "linear", "warmup": 0.06},
        "data": {"name": "bundled", "max_length": 256},
        "evaluation": {"batch_size": 64, "max_new_tokens": 10},
        "logger": {"name": "none", "tags": []},
        "run": {"root": "runs"},
        "trainer": {"per_device_train_batch_size": 8, "max_steps": 20, "max_grad_norm": 1.0, "logging_steps": 5},
        "cache": "auto",
        "seed": seed,
        "experiment": None,
    }
    for key, value in more.items():
        *path, last = key.split(".")
        place = content
        for part in path:
            place = place[part]
        place[last] = value
    return content


def result(
    method: str = "prefix", seed: int = 1, score: float | None = 0.7, task: str = "rte", **more: Any
) -> dict[str, Any]:
    """The content of result.json."""
    return {
        "status": "done",
        "task": task,
        "method": method,
        "model": "bundled",
        "data": {"name": "bundled", "bundled": True, "train": 64, "validation": 32, "test": 32, "truncated": 0},
        "seed": seed,
        "metric": "accuracy",
        "scores": {
            "validation": {"accuracy": 0.6},
            "test": {"accuracy": score},
            "majority": {"accuracy": 0.53},
            "chance": None,
        },
        "parameters": {"trainable": 100, "total": 1000, "bytes": 400, "groups": {"prefix": 100}},
        "timing": {"step_ms_median": 10.0, "train_s": 5.0, "total_s": 6.0, "examples_per_s": 100.0},
        "memory": {"peak_bytes": 5_000_000},
        "steps": 20,
        "epochs": 2.5,
        "best_step": 16,
        "config_fingerprint": f"{method}-{seed}-{task}",
        "data_fingerprint": "d",
        "backbone_fingerprint": "b",
        "versions": {"mmpt": "0.1.0", "torch": "2.13.0", "peft": "0.21.2"},
        "warnings": [],
        **more,
    }


def write(root: Path, method: str = "prefix", seed: int = 1, score: float | None = 0.7, **more: Any) -> Path:
    """Write a finished run.

    Args:
        root: Folder of runs.
        method: Its name.
        seed: Its seed.
        score: Of the test.
        more: ``name`` of the directory, ``settings`` (dotted keys), ``answers`` (whether each example is right),
            ``status`` (of status.json), ``task``; anything else replaces a key of the result.
    """
    task, settings = more.pop("task", "rte"), more.pop("settings", {})
    answers: Sequence[bool] = more.pop("answers", ())
    status: dict[str, Any] = more.pop("status", {"status": "done"})
    directory = root / more.pop("name", f"{task}-{method}-{seed}")
    directory.mkdir(parents=True)
    (directory / "status.json").write_text(json.dumps({"started": "2026-01-01T00:00:00Z", **status}))
    chosen = config(method, seed, task, **settings)
    (directory / "config.yaml").write_text(yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True))
    lines = [{"step": 5, "time": 1.0, "train/loss": 2.0}, {"step": 8, "time": 2.0, "validation/accuracy": 0.6}]
    lines[1] |= {"validation/loss": 0.5, "routes/load_0": 0.25, "routes/load_1": 0.75}
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if status["status"] == "done":
        (directory / "result.json").write_text(json.dumps(result(method, seed, score, task, **more)))
        rows = [{"id": str(i), "source": f"s{i}", "target": "t", "correct": right} for i, right in enumerate(answers)]
        (directory / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def write_masks(directory: Path, routes: int = 2, tokens: int = 3, layers: int = 2) -> None:
    """Give a run an adapter with masks."""
    from safetensors.numpy import save_file

    (directory / "adapter").mkdir()
    values = np.linspace(-3, 3, routes * tokens * layers, dtype=np.float32).reshape(routes, tokens, layers)
    save_file({"masks.cross": values, "router.weight": values[0]}, directory / "adapter" / "adapter.safetensors")
