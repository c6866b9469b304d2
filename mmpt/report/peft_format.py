"""A run in the layout of the result files of peft's method_comparison: run_info, train_info, meta_info.

Every field of those files is there; what mmpt doesn't measure is null, and ``mmpt`` holds what they have no field for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmpt.report.details import metrics
from mmpt.report.records import with_config
from mmpt.report.run import Run, number
from mmpt.utils.untrusted import one_line, parse_json, read_bytes

PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
STATUS = {"done": "success", "repeated": "success", "failed": "failed", "interrupted": "canceled"}


def experiment(run: Run) -> dict[str, Any]:
    """Describe one run.

    Args:
        run: Whatever came of it; its metrics, status and environment are read from its directory.

    Returns:
        Plain JSON values.
    """
    status, environment = _read(run, "status.json"), _read(run, "environment.json")
    return {
        "run_info": _run_info(run, status),
        "train_info": _train_info(run),
        "meta_info": _meta_info(run, environment),
        "mmpt": {"name": run.name, "status": run.status, "problem": run.problem, "result": with_config(run)},
    }


def _run_info(run: Run, status: Mapping[str, Any]) -> dict[str, Any]:
    method = dict(_group(run, "method"))
    name = method.pop("name", run.known("method"))
    return {
        "created_at": status.get("started"),
        "total_time": _value(run.result, "timing", "total_s"),
        "experiment_name": f"{run.known('method')}/{run.name}",
        "peft_branch": None,
        "train_config": _train_config(run),
        "peft_config": {"peft_type": str(name).upper(), **method},
        "error_msg": "" if run.status == "done" else one_line(run.problem),
    }


def _train_config(run: Run) -> dict[str, Any]:
    model, data, trainer = (_group(run, name) for name in ("model", "data", "trainer"))
    optimizer, evaluation = _group(run, "optimizer"), _group(run, "evaluation")
    return {
        "model_id": model.get("path") or run.known("model"),
        "dtype": model.get("dtype"),
        "max_seq_length": data.get("max_length"),
        "batch_size": trainer.get("per_device_train_batch_size"),
        "batch_size_eval": evaluation.get("batch_size"),
        "max_steps": run.result.get("steps", trainer.get("max_steps")),
        "eval_steps": trainer.get("eval_steps"),
        "compile": bool(trainer.get("torch_compile", False)),
        "use_gc": bool(trainer.get("gradient_checkpointing", False)),
        "query_template": _group(run, "task").get("template"),
        "seed": run.seed,
        "grad_norm_clip": trainer.get("max_grad_norm"),
        "optimizer_type": optimizer.get("name"),
        "optimizer_kwargs": {
            "lr": _group(run, "method").get("lr"),
            **{key: value for key, value in optimizer.items() if key != "name"},
        },
        "lr_scheduler": _group(run, "scheduler").get("name"),
        "use_amp": bool(trainer.get("bf16", False) or trainer.get("fp16", False)),
        "autocast_adapter_dtype": False,
        "generation_kwargs": {"max_new_tokens": evaluation.get("max_new_tokens")},
        "attn_implementation": model.get("attention"),
        "init_kv_cache_prefix": None,
    }


def _train_info(run: Run) -> dict[str, Any]:
    return {
        "accelerator_memory_reserved_avg": None,
        "accelerator_memory_max": _value(run.result, "memory", "peak_bytes"),
        "accelerator_memory_reserved_99th": None,
        "train_time": _value(run.result, "timing", "train_s"),
        "file_size": _value(run.result, "parameters", "bytes"),
        "num_trainable_params": _value(run.result, "parameters", "trainable"),
        "num_total_params": _value(run.result, "parameters", "total"),
        "status": STATUS.get(run.status, run.status),
        "metrics": _metrics(run),
    }


def _metrics(run: Run) -> list[dict[str, Any]]:
    """One entry an evaluation, then one for the test."""
    lines = metrics(run)
    began = next((time for line in lines if (time := number(line, "time")) is not None), None)
    entries, loss = [], None
    batch = _samples_a_step(run)
    for line in lines:
        loss = line.get("train/loss", loss)
        if not any(str(key).startswith("validation/") for key in line):
            continue
        now, step = number(line, "time"), line.get("step")
        elapsed = now - began if now is not None and began is not None else None
        entry = dict.fromkeys(
            ("train time", "eval time", "tokens / sec", "mem allocated avg", "mem reserved avg"), None
        )
        samples = step * batch if isinstance(step, int) and batch is not None else None
        entries.append(
            {"step": step, "valid accuracy": line.get(f"validation/{run.metric}"), "train loss": loss}
            | {"train samples": samples, "elapsed time": elapsed, **entry}
        )
    steps = run.result.get("steps")
    samples = steps * batch if isinstance(steps, int) and batch is not None else None
    if run.result:
        entries.append(
            {"step": steps, "test accuracy": run.score(), "train loss": loss, "train samples": samples}
            | {"train total tokens": None, "forgetting": None}
        )
    return entries


def _samples_a_step(run: Run) -> int | None:
    """Of one process; a run on several doesn't say how many it had."""
    trainer = _group(run, "trainer")
    batch, several = trainer.get("per_device_train_batch_size"), trainer.get("gradient_accumulation_steps", 1)
    return batch * several if isinstance(batch, int) and isinstance(several, int) else None


def _meta_info(run: Run, environment: Mapping[str, Any]) -> dict[str, Any]:
    versions = run.result.get("versions")
    versions = versions if isinstance(versions, Mapping) else environment.get("versions", {})
    hub = _group(run, "task").get("hub") if _group(run, "data").get("name") == "hub" else None
    gpus = environment.get("gpus")
    parts = str(environment.get("platform", "")).partition("-with-")[0].split("-")  # Linux-6.1.0-x86_64-with-glibc2.36
    packages: dict[str, Any] = {}
    for name in PACKAGES:
        packages |= {f"{name}-version": versions.get(name), f"{name}-commit-hash": None}
    revision = _group(run, "model").get("revision")
    return {
        "model_info": {
            "sha": revision,
            "created_at": None,
            "fingerprint": run.result.get("backbone_fingerprint"),
        },
        "dataset_info": {
            "sha": hub.get("revision") if isinstance(hub, Mapping) else None,
            "created_at": None,
            "fingerprint": run.result.get("data_fingerprint"),
        },
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
    group = run.settings.values.get(name) if run.settings is not None else None
    return group if isinstance(group, Mapping) else {}


def _value(result: Mapping[str, Any], group: str, name: str) -> Any:
    values = result.get(group)
    return values.get(name) if isinstance(values, Mapping) else None


def _read(run: Run, name: str) -> dict[str, Any]:
    """A JSON object of the run directory; empty where there is none, for load.py has said so already."""
    if run.place is None:
        return {}
    try:
        content: Iterable[Any] = parse_json(read_bytes(run.place / name))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
