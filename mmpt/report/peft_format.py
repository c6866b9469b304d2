"""A run in the layout of the result files of peft's method_comparison: run_info, train_info, meta_info.

What mmpt does not measure is null; ``mmpt`` holds what those files have no field for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from mmpt.report.details import metrics
from mmpt.report.records import with_config
from mmpt.report.run import Run
from mmpt.runs import names
from mmpt.runs.result import Result
from mmpt.runs.typed_json import number, whole
from mmpt.utils.untrusted import one_line, parse_object, read_bytes

PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
STATUS = {"done": "success", "repeated": "success", "failed": "failed", "interrupted": "canceled"}
_EVALUATION = ("train time", "eval time", "tokens / sec", "mem allocated avg", "mem reserved avg")  # not measured


def experiment(run: Run) -> dict[str, Any]:
    """Describe one run in plain JSON values, whatever came of it; its directory is read for the details."""
    result, method = run.result or Result(), dict(run.group("method"))
    name = method.pop("name", None) or run.known("method")
    return {
        "run_info": {
            "created_at": _read(run, "status.json").get("started"),
            "total_time": result.timing.total_s,
            "experiment_name": f"{run.known('method')}/{run.name}",
            "peft_branch": None,
            "train_config": _train_config(run),
            "peft_config": {"peft_type": str(name).upper(), **method},
            "error_msg": "" if run.status == "done" else one_line(run.problem),
        },
        "train_info": {
            "accelerator_memory_reserved_avg": None,
            "accelerator_memory_max": result.memory.peak_bytes,
            "accelerator_memory_reserved_99th": None,
            "train_time": result.timing.train_s,
            "file_size": result.parameters.bytes,
            "num_trainable_params": result.parameters.trainable,
            "num_total_params": result.parameters.total,
            "status": STATUS.get(run.status, run.status),
            "metrics": _metrics(run),
        },
        "meta_info": _meta_info(run, result, _read(run, "environment.json")),
        "mmpt": {"name": run.name, "status": run.status, "problem": run.problem, "result": with_config(run)},
    }


def _train_config(run: Run) -> dict[str, Any]:
    model, data, trainer, evaluation = map(run.group, ("model", "data", "trainer", "evaluation"))
    optimizer = dict(run.group("optimizer"))
    return {
        "model_id": model.get("path") or run.known("model"),
        "dtype": model.get("dtype"),
        "max_seq_length": data.get("max_length"),
        "batch_size": trainer.get("per_device_train_batch_size"),
        "batch_size_eval": evaluation.get("batch_size"),
        "max_steps": run.result.steps if run.result is not None else trainer.get("max_steps"),
        "eval_steps": trainer.get("eval_steps"),
        "compile": bool(trainer.get("torch_compile", False)),
        "use_gc": bool(trainer.get("gradient_checkpointing", False)),
        "query_template": run.group("task").get("template"),
        "seed": run.seed,
        "grad_norm_clip": trainer.get("max_grad_norm"),
        "optimizer_type": optimizer.pop("name", None),
        "optimizer_kwargs": {"lr": run.group("method").get("lr"), **optimizer},
        "lr_scheduler": run.group("scheduler").get("name"),
        "use_amp": bool(trainer.get("bf16", False) or trainer.get("fp16", False)),
        "autocast_adapter_dtype": False,
        "generation_kwargs": {"max_new_tokens": evaluation.get("max_new_tokens")},
        "attn_implementation": model.get("attention"),
        "init_kv_cache_prefix": None,
    }


def _metrics(run: Run) -> list[dict[str, Any]]:
    """One entry an evaluation, then one for the test; samples are those of one process."""
    lines, trainer = metrics(run), run.group("trainer")
    began = next((time for line in lines if (time := number(line.get("time"))) is not None), None)
    batch = whole(trainer.get("per_device_train_batch_size"))
    several = whole(trainer.get("gradient_accumulation_steps", 1))

    def entry(score: str, value: Any, step: Any) -> dict[str, Any]:
        known = whole(step)
        samples = None if known is None or batch is None or several is None else known * batch * several
        return {"step": step, score: value, "train loss": loss, "train samples": samples}

    entries, loss = [], None
    for line in lines:
        loss = line.get(names.LOSS, loss)
        if any(str(key).startswith("validation/") for key in line):
            now, score = number(line.get("time")), line.get(names.VALIDATION_METRIC.format(metric=run.metric))
            elapsed = {"elapsed time": now - began if now is not None and began is not None else None}
            entries.append(entry("valid accuracy", score, line.get("step")) | elapsed | dict.fromkeys(_EVALUATION))
    if run.result is not None:
        test = entry("test accuracy", run.score(), run.result.steps)
        entries.append(test | {"train total tokens": None, "forgetting": None})
    return entries


def _meta_info(run: Run, result: Result, environment: Mapping[str, Any]) -> dict[str, Any]:
    versions = result.versions if result.versions is not None else environment.get("versions")
    versions = versions if isinstance(versions, Mapping) else {}
    hub = run.group("task").get("hub") if run.group("data").get("name") == "hub" else None
    gpus = environment.get("gpus")
    parts = str(environment.get("platform", "")).partition("-with-")[0].split("-")  # Linux-6.1.0-x86_64-with-glibc2.36
    packages: dict[str, Any] = {}
    for name in PACKAGES:
        packages |= {f"{name}-version": versions.get(name), f"{name}-commit-hash": None}
    model, dataset = run.group("model").get("revision"), hub.get("revision") if isinstance(hub, Mapping) else None
    return {
        "model_info": {"sha": model, "created_at": None, "fingerprint": result.backbone_fingerprint},
        "dataset_info": {"sha": dataset, "created_at": None, "fingerprint": result.data_fingerprint},
        "package_info": packages,
        "system_info": {
            "system": parts[0] or None,
            "release": "-".join(parts[1:-1]) or None,
            "version": None,
            "machine": parts[-1] if len(parts) > 2 else None,
            "processor": environment.get("cpu"),
            "accelerator": gpus[0] if isinstance(gpus, list) and gpus else None,
        },
        "pytorch_info": versions.get("torch"),
    }


def _read(run: Run, name: str) -> dict[str, Any]:
    """A JSON object of the run directory; empty where there is none, which load.py has reported already."""
    with contextlib.suppress(OSError, ValueError):
        return {} if run.directory is None else parse_object(read_bytes(run.directory / name))
    return {}
