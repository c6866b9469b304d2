"""A run in the layout of the result files of peft's method_comparison: run_info, train_info, meta_info.

What mmpt does not measure is null; ``mmpt`` holds what those files have no field for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpt.report.details import metrics
from mmpt.report.records import with_config
from mmpt.report.run import Run
from mmpt.runs import names
from mmpt.runs.result import Result
from mmpt.runs.typed_json import number
from mmpt.utils.untrusted import one_line, parse_json, read_bytes

PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
STATUS = {"done": "success", "repeated": "success", "failed": "failed", "interrupted": "canceled"}
_EVALUATION = ("train time", "eval time", "tokens / sec", "mem allocated avg", "mem reserved avg")  # not measured


def experiment(run: Run) -> dict[str, Any]:
    """Describe one run.

    Args:
        run: Whatever came of it; its metrics, status and environment are read from its directory.

    Returns:
        Plain JSON values.
    """
    result, environment = run.result or Result(), _read(run, "environment.json")
    method = dict(_group(run, "method"))
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
        "meta_info": _meta_info(run, result, environment),
        "mmpt": {"name": run.name, "status": run.status, "problem": run.problem, "result": with_config(run)},
    }


def _train_config(run: Run) -> dict[str, Any]:
    model, data, trainer = (_group(run, name) for name in ("model", "data", "trainer"))
    optimizer, evaluation = _group(run, "optimizer"), _group(run, "evaluation")
    rates = {"lr": _group(run, "method").get("lr")}
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
        "query_template": _group(run, "task").get("template"),
        "seed": run.seed,
        "grad_norm_clip": trainer.get("max_grad_norm"),
        "optimizer_type": optimizer.get("name"),
        "optimizer_kwargs": rates | {key: value for key, value in optimizer.items() if key != "name"},
        "lr_scheduler": _group(run, "scheduler").get("name"),
        "use_amp": bool(trainer.get("bf16", False) or trainer.get("fp16", False)),
        "autocast_adapter_dtype": False,
        "generation_kwargs": {"max_new_tokens": evaluation.get("max_new_tokens")},
        "attn_implementation": model.get("attention"),
        "init_kv_cache_prefix": None,
    }


def _metrics(run: Run) -> list[dict[str, Any]]:
    """One entry an evaluation, then one for the test."""
    lines = metrics(run)
    began = next((time for line in lines if (time := number(line.get("time"))) is not None), None)
    trainer = _group(run, "trainer")
    batch, several = trainer.get("per_device_train_batch_size"), trainer.get("gradient_accumulation_steps", 1)

    def samples(step: Any) -> int | None:
        """Of one process; a run on several does not say how many it had."""
        known = isinstance(batch, int) and isinstance(several, int) and isinstance(step, int)
        return step * batch * several if known else None

    entries, loss = [], None
    for line in lines:
        loss = line.get(names.LOSS, loss)
        if not any(str(key).startswith("validation/") for key in line):
            continue
        now, step = number(line.get("time")), line.get("step")
        elapsed = now - began if now is not None and began is not None else None
        score = line.get(names.VALIDATION_METRIC.format(metric=run.metric))
        entry = {"step": step, "valid accuracy": score, "train loss": loss, "train samples": samples(step)}
        entries.append(entry | {"elapsed time": elapsed} | dict.fromkeys(_EVALUATION))
    if run.result is not None:
        step = run.result.steps
        entry = {"step": step, "test accuracy": run.score(), "train loss": loss, "train samples": samples(step)}
        entries.append(entry | {"train total tokens": None, "forgetting": None})
    return entries


def _meta_info(run: Run, result: Result, environment: Mapping[str, Any]) -> dict[str, Any]:
    versions = result.versions if result.versions is not None else environment.get("versions")
    versions = versions if isinstance(versions, Mapping) else {}
    hub = _group(run, "task").get("hub") if _group(run, "data").get("name") == "hub" else None
    gpus = environment.get("gpus")
    parts = str(environment.get("platform", "")).partition("-with-")[0].split("-")  # Linux-6.1.0-x86_64-with-glibc2.36
    packages: dict[str, Any] = {}
    for name in PACKAGES:
        packages |= {f"{name}-version": versions.get(name), f"{name}-commit-hash": None}
    model_info = {"sha": _group(run, "model").get("revision"), "created_at": None}
    dataset_info = {"sha": hub.get("revision") if isinstance(hub, Mapping) else None, "created_at": None}
    return {
        "model_info": model_info | {"fingerprint": result.backbone_fingerprint},
        "dataset_info": dataset_info | {"fingerprint": result.data_fingerprint},
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


def _group(run: Run, name: str) -> Mapping[str, Any]:
    return {} if run.settings is None else run.settings.group(name)


def _read(run: Run, name: str) -> dict[str, Any]:
    """A JSON object of the run directory; empty where there is none, which load.py has reported already."""
    if run.directory is None:
        return {}
    try:
        content = parse_json(read_bytes(run.directory / name))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
