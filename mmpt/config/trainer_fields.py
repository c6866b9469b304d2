"""The fields of transformers.TrainingArguments, read from its source: importing it would import torch."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from mmpt.config.typed_build import Problems, shown
from mmpt.errors import ConfigError, nearest

_ELSEWHERE = {  # fields that another key sets, or that the framework must decide
    "output_dir": "set run.dir (or run.root) instead",
    "run_name": "the run directory names the run: set run.dir instead",
    "overwrite_output_dir": "set run.overwrite=true instead",
    "report_to": "set logger=wandb, tensorboard, trackio, csv or none instead",
    "project": "set logger.project instead",
    "seed": "set seed (without trainer.) instead",
    "learning_rate": "set the learning rate of a parameter group instead: method.lr.GROUP",
    "lr_scheduler_type": "set scheduler=linear, cosine or constant, or scheduler.name instead",
    "warmup_steps": "set scheduler.warmup instead",
    "warmup_ratio": "set scheduler.warmup instead",
    "optim": "set optimizer=adafactor or optimizer=adamw instead",
    "optim_args": "set the keys of optimizer instead",
    "weight_decay": "set optimizer.weight_decay instead",
    "adam_beta1": "set optimizer.betas instead",
    "adam_beta2": "set optimizer.betas instead",
    "adam_epsilon": "set optimizer.eps instead",
    "per_device_eval_batch_size": "set evaluation.batch_size instead",
    "load_best_model_at_end": "the best checkpoint is always taken; evaluation.best_by says by what",
    "metric_for_best_model": "set evaluation.best_by instead",
    "greater_is_better": "set evaluation.best_by instead",
    "resume_from_checkpoint": "the same command again continues an interrupted run by itself",
    "save_only_model": "checkpoints hold all that a run needs to go on exactly; they are small",
    "ignore_data_skip": "an interrupted run goes on with the very examples that come next",
    "restore_callback_states_from_checkpoint": "an interrupted run always goes on with evaluation.patience as it was",
    "activation_checkpointing": "set trainer.gradient_checkpointing=true instead",  # not a field of every transformers
    "auto_find_batch_size": "set run.retry_oom=true instead",
    "remove_unused_columns": "batches are made by mmpt and have no unused columns",
    "label_names": "batches are made by mmpt, with the label field 'labels'",
    "disable_tqdm": "progress is shown on a terminal and left out elsewhere",
    "hub_token": "settings are written to files: set HF_TOKEN in the environment, or run `hf auth login`",
    "do_train": "train.py always trains",
    "do_eval": "train.py always evaluates",
    "do_predict": "train.py always writes predictions",
}
_SIMPLE: dict[str, type | None] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "dict": dict,
    "list": list,
    "None": None,
}
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", dict: "a mapping", list: "a list"}
_LEAST: dict[str, float] = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "logging_steps": 0,
    "max_grad_norm": 0,
    "dataloader_num_workers": 0,
    "eval_delay": 0,
}


@cache
def training_arguments() -> dict[str, str]:
    """Name every field with its annotation as text.

    Raises:
        ConfigError: transformers isn't installed, or its source has another form.
    """
    for node in _source("training_args.py").body:
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments":
            return {
                item.target.id: ast.unparse(item.annotation)
                for item in node.body
                if isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and not item.target.id.startswith("_")
                and "ClassVar" not in ast.unparse(item.annotation)
            }
    raise ConfigError("the installed transformers has no TrainingArguments in training_args.py; see constraints.txt")


@cache
def enum_values(name: str) -> tuple[str, ...]:
    """Give the values of one of transformers' string enums, such as SchedulerType; empty where there is none."""
    for node in [*_source("trainer_utils.py").body, *_source("training_args.py").body]:
        if isinstance(node, ast.ClassDef) and node.name == name:
            values = [item.value.value for item in node.body if isinstance(item, ast.Assign)
                      and isinstance(item.value, ast.Constant)]  # fmt: skip
            return tuple(str(value) for value in values)
    return ()


def check_trainer(values: dict[str, Any], problems: Problems) -> None:
    """Check ``trainer.*``: names, types and ranges.

    Args:
        values: The group ``trainer`` as plain data.
        problems: Where findings go.
    """
    known = training_arguments()
    for name, value in values.items():
        key = f"trainer.{name}"
        if name in _ELSEWHERE:
            problems.add(key, f"{key} cannot be set: {_ELSEWHERE[name]}")
        elif name not in known:
            problems.add(
                key, f"unknown key {key}; allowed: any field of transformers.TrainingArguments{nearest(name, known)}"
            )
        elif _right_type(key, value, known[name], problems):
            _check_range(name, value, problems)
    _check_combinations(values, problems)


def _right_type(key: str, value: Any, annotation: str, problems: Problems) -> bool:
    parts = [part.strip() for part in annotation.split("|")]
    choices = [choice for part in parts for choice in enum_values(part)]
    if choices and isinstance(value, str):
        if value in choices:
            return True
        problems.add(
            key, f"{key}={shown(value)} is not allowed; choose from: {', '.join(choices)}{nearest(value, choices)}"
        )
        return False
    kinds = [_SIMPLE[part.split("[")[0]] for part in parts if part.split("[")[0] in _SIMPLE]
    if not kinds or any(_is_a(value, kind) for kind in kinds):
        return True
    words = [_WORDS[kind] if kind else "null" for kind in kinds]
    expected = "one of " + ", ".join(choices) if choices else " or ".join(words)
    problems.add(key, f"{key} must be {expected}; got {shown(value)}")
    return False


def _is_a(value: Any, kind: type | None) -> bool:
    if kind is None:
        return value is None
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _check_range(name: str, value: Any, problems: Problems) -> None:
    key = f"trainer.{name}"
    if name in _LEAST and value < _LEAST[name]:
        problems.add(key, f"{key}={value} is too small; it must be at least {_LEAST[name]:g}")
    if name == "num_train_epochs" and value <= 0:
        problems.add(key, f"{key}={value} must be positive; for a run of a few steps set trainer.max_steps")
    if name == "max_steps" and value != -1 and value < 1:
        problems.add(key, f"{key}={value} must be at least 1, or -1 for trainer.num_train_epochs to decide")


def _check_combinations(values: dict[str, Any], problems: Problems) -> None:
    if values.get("fp16") is True and values.get("bf16") is True:
        problems.add("trainer.fp16", "trainer.fp16 and trainer.bf16 exclude each other; keep one")
    if (values.get("gradient_checkpointing_kwargs") or {}).get("use_reentrant") is True:
        text = "trainer.gradient_checkpointing_kwargs.use_reentrant=true finds no gradient for a frozen backbone"
        problems.add("trainer.gradient_checkpointing_kwargs", f"{text}; leave it out")
    evaluated, saved = values.get("eval_strategy", "epoch"), values.get("save_strategy")
    if saved is not None and evaluated != "no" and saved != evaluated:
        problems.add(
            "trainer.save_strategy",
            f"trainer.save_strategy={saved} differs from trainer.eval_strategy={evaluated}: a checkpoint is saved at "
            "each evaluation, so that the best can be taken; leave it out",
        )
    for what in ("eval", "save"):
        if values.get(f"{what}_strategy") == "steps" and values.get(f"{what}_steps", 0) is None:
            problems.add(f"trainer.{what}_steps", f"trainer.{what}_strategy=steps needs trainer.{what}_steps")


@cache
def _source(name: str) -> ast.Module:
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        raise ConfigError("the package transformers isn't installed; install mmpt as the README says")
    return ast.parse((Path(found.origin).parent / name).read_text(encoding="utf-8"))
