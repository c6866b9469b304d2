"""When two runs are the same: a hash of everything in the configuration that can change the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mmpt.attention.architectures import ARCHITECTURES
from mmpt.config.schema import Config

FORMAT = 2  # raise it when the same configuration comes to mean another computation
_NOT_OF_THE_RESULT = {"run", "logger", "experiment", "cache", "sweep"}  # a preset's values count, its name doesn't
_DISPLAY = {  # trainer fields that show, store or speed up, and leave the numbers alone
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "logging_first_step",
    "logging_steps",
    "save_steps",
    "save_total_limit",
}


def run_fingerprint(config: Config) -> str:
    """Identify a run by what decides its result: not by where it is stored, logged or shown.

    Args:
        config: A checked configuration; its defaults are filled in, so spelling one out changes nothing.

    Returns:
        SHA-256 in hexadecimal.
    """
    values = deciding(dataclasses.asdict(config))
    values["method"]["options"].pop("init_adapter", None)  # its content counts, in mmpt.training.run, not its place
    text = json.dumps(
        {"format": FORMAT, **values}, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a configuration what can't change a result.

    Args:
        values: A configuration as plain values, such as a run's ``config.yaml``.

    Returns:
        A copy without logging, places, names of presets, the trainer's fields that only show or store, and what of a
        task only classification heads read. The cache leaves all but rounding as it is, unless it stores another type
        than was computed.
    """
    kept = {name: value for name, value in values.items() if name not in _NOT_OF_THE_RESULT}
    if isinstance(trainer := kept.get("trainer"), Mapping):
        kept["trainer"] = {name: value for name, value in trainer.items() if name not in _DISPLAY}
        if trainer.get("eval_strategy") == "steps" and not trainer.get("eval_steps"):
            kept["trainer"]["eval_steps"] = trainer.get("logging_steps")  # which checkpoint is best depends on it
    if isinstance(task := kept.get("task"), Mapping) and not _has_head(kept.get("model")):
        kept["task"] = {name: value for name, value in task.items() if name not in ("pair", "choices")}
    cache = values.get("cache")
    if isinstance(cache, Mapping) and cache.get("mode") != "off" and cache.get("dtype", "model") != "model":
        kept["cache"] = {"dtype": cache["dtype"]}
    return kept


def setting_key(values: Mapping[str, Any]) -> str:
    """Identify what runs of one setting share: all that decides a result, except the seed.

    Args:
        values: A resolved configuration as plain values, such as a run's ``config.yaml``.
    """
    return values_key({name: value for name, value in deciding(values).items() if name != "seed"})


def values_key(values: Mapping[str, Any]) -> str:
    """Hash plain values; neither their order nor the spelling of a number (1 or 1.0) matters."""
    plain = json.loads(json.dumps(values, default=str, skipkeys=True), parse_int=float)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _has_head(model: Any) -> bool:
    """Whether a model has a classification head, or may have one."""
    known = ARCHITECTURES.get(str(model.get("architecture"))) if isinstance(model, Mapping) else None
    return known is None or known.kind == "encoder"
