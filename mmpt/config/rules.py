"""Values and combinations that are well typed and yet impossible: one small function a group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmpt.attention.architectures import ARCHITECTURES, architecture_of
from mmpt.bundled.tasks import NAMES
from mmpt.config.schema import (
    CacheConfig,
    DataConfig,
    EvaluationConfig,
    LoggerConfig,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SchedulerConfig,
    TaskConfig,
    TrainerConfig,
)
from mmpt.config.typed_build import Problems, is_folder
from mmpt.data.tasks import Task
from mmpt.errors import ConfigError, ModelError, nearest
from mmpt.utils import extensions

SPLITS = ("train", "validation", "test")
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt")
LOSSES = ("cross_entropy", "label_ranking")  # of mmpt.training.losses; others are files of the user
MOST = 1_000_000  # of whatever is counted: tokens, samples of a bootstrap, rows at once


def check_rules(parts: Mapping[str, Any], problems: Problems) -> None:
    """Check each group by itself, then the groups against each other.

    Args:
        parts: Group name -> its dataclass, only of groups without a wrong type.
        problems: Where findings go.
    """
    for name, rule in _RULES.items():
        if name in parts:
            rule(parts[name], problems)
    if "task" in parts and "evaluation" in parts:
        _task_with_evaluation(parts["task"], parts["evaluation"], problems)
    if "model" in parts and "evaluation" in parts and "task" in parts:
        _head_with_others(parts["model"], parts["evaluation"], parts["task"], problems)
    if "task" in parts and "data" in parts:
        _task_with_data(parts["task"], parts["data"], problems)
    if "data" in parts and "method" in parts:
        _data_with_method(parts["data"], parts["method"], problems)
    if "model" in parts and "method" in parts:
        _model_with_method(parts["model"], parts["method"], problems)
    if "evaluation" in parts and "method" in parts:
        _evaluation_with_method(parts["evaluation"], parts["method"], problems)
    if "evaluation" in parts and "trainer" in parts:
        _evaluation_with_trainer(parts["evaluation"], parts["trainer"], problems)
    if "task" in parts and "trainer" in parts:
        _task_with_trainer(parts["task"], parts["trainer"], problems)


def _at_least(problems: Problems, group: str, config: Any, least: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            problems.add(f"{group}.{name}", f"{group}.{name}={value} is too small; it must be at least {least}")


def _at_most(problems: Problems, key: str, value: int, most: int) -> None:
    if value > most:
        problems.add(key, f"{key}={str(value)[:40]} is too large; it must be at most {most}")


def _max_length(length: int, problems: Problems, key: str = "max_length") -> None:
    if length < 1:
        problems.add(key, f"{key}={length} is too small; it must be at least 1")
    _at_most(problems, key, length, MOST)


def _between(problems: Problems, key: str, value: float) -> None:
    if not 0 < value < 1:
        problems.add(key, f"{key}={value:g} must lie between 0 and 1, both excluded")


def _one_of(problems: Problems, key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        problems.add(key, f"{key}={value} isn't allowed; choose from: {', '.join(allowed)}{nearest(value, allowed)}")


def _task(task: TaskConfig, problems: Problems) -> None:
    try:
        Task(task)  # the template, the labels and the metric are checked where they are used
    except ConfigError as error:
        for text in error.problems:
            problems.add("task", text)
    for key, files in (("task.files", task.files), ("task.hub.files", task.hub.files if task.hub is not None else {})):
        for split in files:
            _one_of(problems, f"{key}.{split}", split, SPLITS)


def _model(model: ModelConfig, problems: Problems) -> None:
    if model.source == "random" and not model.config:
        problems.add("model.config", "model.source=random needs model.config, the shape of the network")
    if model.architecture != "auto":
        try:
            architecture = architecture_of(model.architecture)
        except ModelError as error:
            problems.add("model.architecture", f"model.architecture={model.architecture}: {error}")
        else:
            if architecture.soft_capped and model.attention != "eager":
                text = f"model.architecture={model.architecture} caps its attention scores, which sdpa can't"
                problems.add("model.attention", f"{text}; set model.attention=eager")
    elif model.source in ("random", "bundled"):
        text = f"model.architecture=auto can't be found out with model.source={model.source}; name the architecture"
        problems.add("model.architecture", text)
    if model.revision is not None and model.source != "hub":
        text = (
            f"model.revision={model.revision} has no meaning with model.source={model.source}; set model.revision=null"
        )
        problems.add("model.revision", text)


def _optimizer(optimizer: OptimizerConfig, problems: Problems) -> None:
    if optimizer.weight_decay < 0:
        problems.add(
            "optimizer.weight_decay", f"optimizer.weight_decay={optimizer.weight_decay:g} must not be negative"
        )
    if len(optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in optimizer.betas):
        problems.add("optimizer.betas", f"optimizer.betas={optimizer.betas} must be two numbers from 0 to below 1")
    for name in ("eps", "clip_threshold"):
        if getattr(optimizer, name) <= 0:
            problems.add(f"optimizer.{name}", f"optimizer.{name}={getattr(optimizer, name):g} must be positive")


def _scheduler(scheduler: SchedulerConfig, problems: Problems) -> None:
    _one_of(problems, "scheduler.name", scheduler.name, SCHEDULES)
    if not scheduler.warmup >= 0 or (scheduler.warmup >= 1 and scheduler.warmup != int(scheduler.warmup)):
        problems.add(
            "scheduler.warmup",
            f"scheduler.warmup={scheduler.warmup:g} must be a share of all steps below 1, or a whole number of steps",
        )


def _trainer(trainer: TrainerConfig, problems: Problems) -> None:
    one = ("per_device_train_batch_size", "gradient_accumulation_steps", "eval_steps", "save_steps", "save_total_limit")
    _at_least(problems, "trainer", trainer, 1, *one, "logging_steps", "dataloader_prefetch_factor")
    _at_least(problems, "trainer", trainer, 0, "max_grad_norm", "eval_delay", "dataloader_num_workers")
    for name in ("max_grad_norm", "eval_delay", "num_train_epochs"):
        if not math.isfinite(getattr(trainer, name)):
            problems.add(f"trainer.{name}", f"trainer.{name}={getattr(trainer, name)} must be a finite number")
    for name in one:
        _at_most(problems, f"trainer.{name}", getattr(trainer, name) or 0, MOST)
    if trainer.num_train_epochs <= 0:
        text = f"trainer.num_train_epochs={trainer.num_train_epochs:g} must be positive"
        problems.add("trainer.num_train_epochs", f"{text}; for a run of a few steps set trainer.max_steps")
    if trainer.max_steps != -1 and trainer.max_steps < 1:
        text = f"trainer.max_steps={trainer.max_steps} must be at least 1"
        problems.add("trainer.max_steps", f"{text}, or -1 for trainer.num_train_epochs to decide")
    if not 0 <= trainer.label_smoothing_factor < 1:
        value = f"{trainer.label_smoothing_factor:g}"
        problems.add("trainer.label_smoothing_factor", f"trainer.label_smoothing_factor={value} must lie in [0, 1)")
    if trainer.label_smoothing_factor and trainer.loss not in LOSSES:
        text = f"trainer.label_smoothing_factor has no effect with trainer.loss={trainer.loss}; leave it out"
        problems.add("trainer.label_smoothing_factor", text)
    if trainer.fp16 and trainer.bf16:
        problems.add("trainer.fp16", "trainer.fp16 and trainer.bf16 exclude each other; keep one")
    if trainer.dataloader_prefetch_factor is not None and not trainer.dataloader_num_workers:
        text = "trainer.dataloader_prefetch_factor needs trainer.dataloader_num_workers of at least 1"
        problems.add("trainer.dataloader_prefetch_factor", text)
    if trainer.loss not in LOSSES and extensions.find("loss", trainer.loss) is None:
        known = (*LOSSES, *extensions.names("loss"))
        text = f"trainer.loss={trainer.loss} is unknown; choose from: {', '.join(known)}{nearest(trainer.loss, known)}"
        problems.add("trainer.loss", text + extensions.hint("loss"))


def _data(data: DataConfig, problems: Problems) -> None:
    _at_least(problems, "data", data, 1, "limit_train", "limit_validation", "limit_test")
    _max_length(data.max_length, problems, "data.max_length")
    _between(problems, "data.validation_fraction", data.validation_fraction)
    if data.name == "local" and data.dir is None:
        problems.add("data.dir", "data=local needs data.dir, the folder with the task's files: data.dir=DIR")
    elif data.dir is not None and data.name != "local":
        problems.add("data.dir", f"data.dir={data.dir} has no meaning with data={data.name}; add data=local")
    elif data.dir is not None and not is_folder(data.dir):
        parent = Path(data.dir).parent
        beside = sorted(entry.name for entry in parent.expanduser().iterdir()) if is_folder(parent) else []
        problems.add("data.dir", f"data.dir={data.dir} is no directory{nearest(Path(data.dir).name, beside)}")


def _evaluation(evaluation: EvaluationConfig, problems: Problems) -> None:
    _at_least(problems, "evaluation", evaluation, 1, "patience", "max_new_tokens", "batch_size")
    _at_least(problems, "evaluation", evaluation, 0, "bootstrap")
    for name in ("max_new_tokens", "bootstrap", "batch_size"):
        _at_most(problems, f"evaluation.{name}", getattr(evaluation, name), MOST)
    _between(problems, "evaluation.confidence", evaluation.confidence)
    if not evaluation.decoding or len(set(evaluation.decoding)) != len(evaluation.decoding):
        problems.add(
            "evaluation.decoding",
            f"evaluation.decoding={evaluation.decoding} must name ranking, generation or both, once each",
        )


def _logger(logger: LoggerConfig, problems: Problems) -> None:
    if not logger.project.strip():
        problems.add("logger.project", "logger.project is empty; give a name, for example mmpt")
    for name in ("tensorboard", "trackio"):
        if getattr(logger, name) and find_spec(name) is None:
            install = f"python -m pip install -c constraints.txt -e '.[{name}]'"
            problems.add(f"logger.{name}", f"logger={name} needs a package that isn't installed: {install}")


def _cache(cache: CacheConfig, problems: Problems) -> None:
    if cache.max_gb <= 0:
        problems.add("cache.max_gb", f"cache.max_gb={cache.max_gb:g} must be positive; cache=ram uses no disk")
    if cache.dir is not None and not cache.dir.strip():
        problems.add("cache.dir", "cache.dir is empty; give a folder or null")
    _home(problems, "cache.dir", cache.dir)


def _run(run: RunConfig, problems: Problems) -> None:
    for name in ("dir", "root"):
        value = getattr(run, name)
        if value is not None and not value.strip():
            problems.add(f"run.{name}", f"run.{name} is empty; give a folder" + (" or null" if name == "dir" else ""))
        _home(problems, f"run.{name}", value)


def _home(problems: Problems, key: str, path: str | None) -> None:
    """Refuse the home of a user that isn't there."""
    try:
        Path(path or "").expanduser()
    except RuntimeError:
        problems.add(key, f"{key}={path} is below the home of no user; write ./{path} for a folder of that name")


def _seed(seed: int, problems: Problems) -> None:
    if not 0 <= seed < 2**32:
        problems.add("seed", f"seed={seed} must lie between 0 and {2**32 - 1}")


def _task_with_evaluation(task: TaskConfig, evaluation: EvaluationConfig, problems: Problems) -> None:
    if not task.labels and "ranking" in evaluation.decoding:
        problems.add(
            "evaluation.decoding",
            f"task={task.name} has free text, so there are no labels to rank; set evaluation.decoding=[generation]",
        )


def _head_with_others(model: ModelConfig, evaluation: EvaluationConfig, task: TaskConfig, problems: Problems) -> None:
    """What a classification head can't do, where it is known to be one before the model is loaded."""
    architecture = ARCHITECTURES.get(model.architecture)
    if architecture is None or architecture.kind != "encoder":
        return
    what = f"model.architecture={model.architecture} has a classification head and writes no text"
    if not task.labels:
        problems.add("model.architecture", f"{what}, but task={task.name} has free text; choose another model")
    elif "generation" in evaluation.decoding:
        problems.add("evaluation.decoding", f"{what}; set evaluation.decoding=[ranking]")


def _task_with_data(task: TaskConfig, data: DataConfig, problems: Problems) -> None:
    if data.name == "bundled" and task.name not in NAMES:
        there = f"data=bundled has no miniature of task={task.name}, only of {', '.join(sorted(NAMES))}"
        problems.add("data.name", f"{there}; for the official or your own data use data=local data.dir=DIR")
    if data.name == "hub" and task.hub is None:
        problems.add(
            "data.name", f"task={task.name} has no task.hub, so data=hub can't load it; use data=local data.dir=DIR"
        )
    if data.name == "local" and not task.files:
        problems.add("task.files", f"task={task.name} has no task.files, so data=local can't find its files")


def _data_with_method(data: DataConfig, method: MethodConfig, problems: Problems) -> None:
    most = getattr(method.options, "max_length", data.max_length)
    if most < data.max_length:
        problems.add(
            "method.max_length",
            f"method.max_length={most} leaves source tokens up to data.max_length={data.max_length} without an update; "
            f"set method.max_length={data.max_length}",
        )


def _model_with_method(model: ModelConfig, method: MethodConfig, problems: Problems) -> None:
    if model.dropout != "none" and getattr(method.options, "router_input", None) == "encoder":
        problems.add(
            "method.router_input",
            "method.router_input=encoder needs the encoder's output to be a constant, but "
            f"model.dropout={model.dropout} drops out in it; set model.dropout=none or method.router_input=embedding",
        )


def _evaluation_with_method(evaluation: EvaluationConfig, method: MethodConfig, problems: Problems) -> None:
    if evaluation.key_cache == "static" and getattr(method.options, "layout", None) == "paper":
        problems.add(
            "evaluation.key_cache",
            "evaluation.key_cache=static doesn't work with method.layout=paper, whose prefix has positions; set "
            "evaluation.key_cache=dynamic",
        )


def _evaluation_with_trainer(evaluation: EvaluationConfig, trainer: TrainerConfig, problems: Problems) -> None:
    if evaluation.patience is not None and trainer.eval_strategy == "no":
        problems.add(
            "evaluation.patience",
            f"evaluation.patience={evaluation.patience} counts evaluations, but trainer.eval_strategy=no makes none",
        )


def _task_with_trainer(task: TaskConfig, trainer: TrainerConfig, problems: Problems) -> None:
    if trainer.loss == "label_ranking" and not task.labels:
        problems.add(
            "trainer.loss",
            f"trainer.loss=label_ranking needs labels, but task={task.name} has free text; set "
            "trainer.loss=cross_entropy",
        )


_RULES: dict[str, Any] = {
    "task": _task,
    "model": _model,
    "optimizer": _optimizer,
    "scheduler": _scheduler,
    "trainer": _trainer,
    "data": _data,
    "evaluation": _evaluation,
    "cache": _cache,
    "logger": _logger,
    "run": _run,
    "seed": _seed,
    "max_length": _max_length,  # of an adapter
}
