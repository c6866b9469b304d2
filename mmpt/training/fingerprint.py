"""When two runs are the same: a hash of everything in the configuration that can change the result. No torch here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mmpt.attention.architectures import ARCHITECTURES
from mmpt.config.schema import Config
from mmpt.utils.files import values_key

FORMAT = 2  # raise it when the same configuration comes to mean another computation
_NOT_OF_THE_RESULT = {"run", "logger", "experiment", "cache", "sweep"}  # a preset's values count, its name does not
_DISPLAY = {  # trainer fields that show, store or speed up, and leave the numbers alone
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "logging_first_step",
    "logging_steps",
    "save_steps",
    "save_total_limit",
}

_READING = {"csv", "columns", "missing", "shots"}  # of a task; the fingerprint of the splits holds what comes of them
_FETCHING = {"num_proc", "streaming"}  # of data; the examples are the same
_CHOSEN = {"repo", "config", "revision"}  # of data; null unless they are chosen


def run_fingerprint(config: Config) -> str:
    """Identify a run by what decides its result (SHA-256): not by where it is stored, logged or shown.

    Args:
        config: A checked configuration; its defaults are filled in, so spelling one out changes nothing.
    """
    values = deciding(dataclasses.asdict(config))
    values["method"]["options"].pop("init_adapter", None)  # its content counts, in mmpt.training.identity
    values["task"] = {name: value for name, value in values["task"].items() if name not in _READING}
    text = json.dumps(
        {"format": FORMAT, **values}, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of plain values, such as a run's ``config.yaml``, what cannot change a result.

    These are logging, paths, names of presets, the trainer's fields that only show or store, and what of a task only
    classification heads read. The cache counts where it stores another type than was computed; that there is none
    counts with mixed precision, which cached states are computed without.
    """
    chosen = {name: value for name, value in values.items() if name not in _NOT_OF_THE_RESULT}
    if isinstance(trainer := chosen.get("trainer"), Mapping):
        chosen["trainer"] = {name: value for name, value in trainer.items() if name not in _DISPLAY}
        if trainer.get("eval_strategy") == "steps" and not trainer.get("eval_steps"):
            chosen["trainer"]["eval_steps"] = trainer.get("logging_steps")  # which checkpoint is best depends on it
    task, model = chosen.get("task"), chosen.get("model")
    architecture = model.get("architecture") if isinstance(model, Mapping) else None
    if isinstance(task, Mapping) and not has_head(architecture):
        chosen["task"] = {name: value for name, value in task.items() if name not in ("pair", "choices")}
    if isinstance(data := chosen.get("data"), Mapping):
        absent = {name for name in _CHOSEN & set(data) if data[name] is None}
        chosen["data"] = {name: value for name, value in data.items() if name not in _FETCHING | absent}
    if isinstance(model := chosen.get("model"), Mapping):  # where layers lie changes no more than another device does
        left_out = {"device_map", "max_memory"} | ({"quantization"} if model.get("quantization") == "none" else set())
        chosen["model"] = {name: value for name, value in model.items() if name not in left_out}
    cache = values.get("cache")
    if isinstance(cache, Mapping) and cache.get("mode") == "off":
        if isinstance(trainer, Mapping) and (trainer.get("bf16") or trainer.get("fp16")):
            chosen["cache"] = {"mode": "off"}
    elif isinstance(cache, Mapping) and cache.get("dtype", "model") != "model":
        chosen["cache"] = {"dtype": cache["dtype"]}
    return chosen


def setting_key(values: Mapping[str, Any]) -> str:
    """Identify what runs of one setting share: all that decides a result, except the seed.

    Args:
        values: A resolved configuration as plain values, such as a run's ``config.yaml``.
    """
    return values_key({name: value for name, value in deciding(values).items() if name != "seed"})


def has_head(architecture: object) -> bool:
    """Whether models of an architecture have a classification head, or may have one."""
    known = ARCHITECTURES.get(str(architecture))
    return known is None or known.has_head
