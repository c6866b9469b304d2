"""Values and combinations that have the right type and are still invalid: one small function a group."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmpt.bundled.tasks import NAMES
from mmpt.config.schema import (
    CacheConfig,
    DataConfig,
    EvaluationConfig,
    LoggerConfig,
    MixConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TaskConfig,
    TrainerConfig,
)
from mmpt.config.typed_build import Problems, is_folder
from mmpt.errors import nearest
from mmpt.utils import extensions

Rule = tuple[tuple[str, ...], Callable[..., None]]  # groups, and a function of them and of Problems
SPLITS = ("train", "validation", "test")
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt")
OF_OPTIMIZER = {"adamw": ("betas", "eps"), "adafactor": ("clip_threshold",)}  # keys that one alone has
LOSSES = ("cross_entropy", "label_ranking")  # of mmpt.training.losses; others are files of the user
MOST = 1_000_000  # of whatever is counted: tokens, samples of a bootstrap, rows at once
COUNTS = {  # the least and the most of what is counted
    (1, MOST): "trainer.per_device_train_batch_size trainer.gradient_accumulation_steps trainer.eval_steps "
    "trainer.save_steps trainer.save_total_limit evaluation.max_new_tokens evaluation.batch_size",
    (1, math.inf): "trainer.logging_steps trainer.dataloader_prefetch_factor evaluation.patience data.limit_train "
    "data.limit_validation data.limit_test data.num_proc",
    (0, MOST): "evaluation.bootstrap task.shots",
    (0, math.inf): "trainer.max_grad_norm trainer.eval_delay trainer.dataloader_num_workers",
}
VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {  # what else a value must be
    "trainer.num_train_epochs": (
        lambda epochs: epochs >= 0,
        "must not be negative; for a run of a few steps set trainer.max_steps",
    ),
    "trainer.max_steps": (
        lambda steps: steps == -1 or steps >= 1,
        "must be at least 1, or -1 for trainer.num_train_epochs to decide",
    ),
    "trainer.label_smoothing_factor": (lambda share: 0 <= share < 1, "must lie in [0, 1)"),
    "optimizer.weight_decay": (lambda decay: decay >= 0, "must not be negative"),
    "optimizer.betas": (
        lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
        "must be two numbers from 0 to below 1",
    ),
    "optimizer.eps": (lambda value: value > 0, "must be positive"),
    "optimizer.clip_threshold": (lambda value: value > 0, "must be positive"),
    "scheduler.warmup": (
        lambda warmup: 0 <= warmup < 1 or (warmup >= 1 and warmup % 1 == 0),
        "must be a share of all steps below 1, or a whole number of steps",
    ),
    "data.validation_fraction": (lambda share: 0 < share < 1, "must lie between 0 and 1, both excluded"),
    "evaluation.confidence": (lambda share: 0 < share < 1, "must lie between 0 and 1, both excluded"),
    "evaluation.decoding": (
        lambda names: len(names) == len(set(names)) > 0,
        "must name ranking, generation or both, once each",
    ),
    "cache.max_gb": (lambda size: size > 0, "must be positive; cache=ram uses no disk"),
    "mix.temperature": (lambda temperature: temperature > 0, "must be a positive number"),
    "seed": (lambda seed: 0 <= seed < 2**32, f"must lie between 0 and {2**32 - 1}"),
}

LIMITED = (*VALUES, *" ".join(COUNTS.values()).split())


def apply_rules(rules: Iterable[Rule], parts: Mapping[str, Any], problems: Problems) -> None:
    """Apply every rule whose groups are all there; groups with a wrong type are left out of ``parts``."""
    for names, rule in rules:
        if all(name in parts for name in names):
            rule(*(parts[name] for name in names), problems)


def _values(group: str, config: Any, problems: Problems) -> None:
    """The limits of single values, from the tables above."""
    limits = [(key, least, most) for (least, most), keys in COUNTS.items() for key in keys.split()]
    for key, least, most in limits:
        if key.startswith(f"{group}.") and (value := getattr(config, key.partition(".")[2])) is not None:
            _count(problems, key, value, least, most)
    for key, (holds, text) in VALUES.items():
        if key.partition(".")[0] == group:
            value = getattr(config, key.partition(".")[2]) if "." in key else config
            if not holds(value):
                problems.add(key, f"{key}={format(value, 'g') if isinstance(value, float) else value} {text}")


def _count(problems: Problems, key: str, value: float, least: float, most: float) -> None:
    if value < least:
        problems.add(key, f"{key}={value} is too small; it must be at least {least}")
    if value > most:
        problems.add(key, f"{key}={str(value)[:40]} is too large; it must be at most {most}")


def max_length(length: int, problems: Problems, key: str = "max_length") -> None:
    """The length to which texts are cut, of an adapter or of ``data``."""
    _count(problems, key, length, 1, MOST)


def _one_of(problems: Problems, key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        problems.add(key, f"{key}={value} is not allowed; choose from: {', '.join(allowed)}{nearest(value, allowed)}")


def _task(task: TaskConfig, problems: Problems) -> None:
    for key, files in (("task.files", task.files), ("task.hub.files", task.hub.files if task.hub is not None else {})):
        for split in files:
            _one_of(problems, f"{key}.{split}", split, SPLITS)


def _model(model: ModelConfig, problems: Problems) -> None:
    if model.source == "random" and not model.config:
        problems.add("model.config", "model.source=random needs model.config, the shape of the network")
    if model.architecture == "auto" and model.source in ("random", "bundled"):
        text = f"model.architecture=auto cannot be determined with model.source={model.source}; name the architecture"
        problems.add("model.architecture", text)
    if model.quantization != "none":
        _quantization(model, problems)
    _max_memory(model, problems)
    if model.revision is not None and model.source != "hub":
        text = f"model.revision={model.revision} has no meaning with model.source={model.source}"
        problems.add("model.revision", f"{text}; set model.revision=null")


def _quantization(model: ModelConfig, problems: Problems) -> None:
    key, what = "model.quantization", f"model.quantization={model.quantization}"
    if model.source == "random":
        text = f"{what} is done while a checkpoint is loaded, and model.source=random has none"
        problems.add(key, f"{text}; save one with save_pretrained and set model.path=DIR, or set {key}=none")
    if find_spec("bitsandbytes") is None:
        install = "python -m pip install -c constraints.txt -e '.[quantization]'"
        problems.add(key, f"{what} needs a package that is not installed: {install}")


def _max_memory(model: ModelConfig, problems: Problems) -> None:
    if model.max_memory and model.device_map is None:
        problems.add("model.max_memory", "model.max_memory has no effect without model.device_map=auto; add that")
    for device, size in model.max_memory.items():
        if not (device == "cpu" or device.isdecimal()) or not re.fullmatch(r"\d+(\.\d+)?[KMG]i?B", size):
            text = f"model.max_memory has {device}: {size}, which is no device with its room; write"
            problems.add("model.max_memory", f"{text} model.max_memory={{0:20GiB,cpu:64GiB}}, where 0 is a GPU")


def _trainer(trainer: TrainerConfig, problems: Problems) -> None:
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
    if data.repo is None and (data.streaming or data.config is not None or data.revision is not None):
        problems.add("data.repo", "data.config, data.revision and data.streaming need data=hub data.repo=OWNER/NAME")
    elif data.repo is not None and data.name != "hub":
        problems.add("data.repo", f"data.repo={data.repo} has no meaning with data={data.name}; add data=hub")
    max_length(data.max_length, problems, "data.max_length")
    if data.name == "local" and data.dir is None:
        problems.add("data.dir", "data=local needs data.dir, the folder with the task's files: data.dir=DIR")
    elif data.dir is not None and data.name != "local":
        problems.add("data.dir", f"data.dir={data.dir} has no meaning with data={data.name}; add data=local")
    elif data.dir is not None and not data.dir.strip():
        problems.add("data.dir", "data.dir is empty; give the folder with the task's files")
    elif data.dir is not None and not is_folder(data.dir):
        parent = Path(data.dir).parent
        beside = sorted(entry.name for entry in parent.expanduser().iterdir()) if is_folder(parent) else []
        problems.add("data.dir", f"data.dir={data.dir} is no directory{nearest(Path(data.dir).name, beside)}")


def _logger(logger: LoggerConfig, problems: Problems) -> None:
    if not logger.project.strip():
        problems.add("logger.project", "logger.project is empty; give a name, for example mmpt")
    for name in ("tensorboard", "trackio"):
        if getattr(logger, name) and find_spec(name) is None:
            install = f"python -m pip install -c constraints.txt -e '.[{name}]'"
            problems.add(f"logger.{name}", f"logger={name} needs a package that is not installed: {install}")


def _folders(config: CacheConfig | RunConfig, problems: Problems) -> None:
    group = "cache" if isinstance(config, CacheConfig) else "run"
    _folder(problems, f"{group}.dir", config.dir, or_null=True)
    if isinstance(config, RunConfig):
        _folder(problems, "run.root", config.root)


def _folder(problems: Problems, key: str, path: str | None, or_null: bool = False) -> None:
    """Reject an empty path, and the home of a user that does not exist."""
    if path is None:
        return
    if not path.strip():
        problems.add(key, f"{key} is empty; give a folder{' or null' if or_null else ''}")
    try:
        Path(path).expanduser()
    except RuntimeError:
        problems.add(key, f"{key}={path} is below the home of no user; write ./{path} for a folder of that name")


def _optimizer(optimizer: OptimizerConfig, problems: Problems) -> None:
    default, other = OptimizerConfig(optimizer.name), "adamw" if optimizer.name == "adafactor" else "adafactor"
    for name in OF_OPTIMIZER[other]:
        if (value := getattr(optimizer, name)) != getattr(default, name):
            text = f"optimizer.{name}={value} has no effect with optimizer={optimizer.name}; leave it out, or add"
            problems.add(f"optimizer.{name}", f"{text} optimizer={other}")


def _mix(mix: MixConfig, task: TaskConfig, problems: Problems) -> None:
    if mix.tasks and not task.parts:
        problems.add("mix.tasks", f"mix.tasks has no effect with task={task.name}; set task=mix")
    default = TaskConfig(task.name, task.template, metric=task.metric, shots=task.shots, parts=task.parts)
    for item in fields(task) if task.parts else ():
        if getattr(task, item.name) != getattr(default, item.name):
            text = f"task.{item.name} has no effect with task={task.name}, whose tasks have their own; leave it out"
            problems.add(f"task.{item.name}", text)


def _task_with_evaluation(task: TaskConfig, evaluation: EvaluationConfig, problems: Problems) -> None:
    if not (task.labels or task.parts) and "ranking" in evaluation.decoding:
        problems.add(
            "evaluation.decoding",
            f"task={task.name} has free text, so there are no labels to rank; set evaluation.decoding=[generation]",
        )


def _task_with_data(task: TaskConfig, data: DataConfig, problems: Problems) -> None:
    if task.parts:
        for part in task.parts.values():
            _task_with_data(part, data, problems)
        return
    if data.name == "bundled" and task.name not in NAMES:
        text = f"data=bundled has no miniature of task={task.name}, only of {', '.join(sorted(NAMES))}"
        problems.add("data.name", f"{text}; for the official or your own data use data=local data.dir=DIR")
    if data.name == "hub" and task.hub is None and data.repo is None:
        text = f"task={task.name} has no task.hub, so data=hub cannot load it; use data=local data.dir=DIR"
        problems.add("data.name", text)
    if data.name == "local" and not task.files:
        problems.add("task.files", f"task={task.name} has no task.files, so data=local cannot find its files")


def _evaluation_with_trainer(evaluation: EvaluationConfig, trainer: TrainerConfig, problems: Problems) -> None:
    if evaluation.patience is not None and trainer.eval_strategy == "no":
        text = f"evaluation.patience={evaluation.patience} counts evaluations, but trainer.eval_strategy=no makes none"
        problems.add("evaluation.patience", text)


def _task_with_trainer(task: TaskConfig, trainer: TrainerConfig, problems: Problems) -> None:
    if trainer.loss == "label_ranking" and not (task.labels or task.parts):
        text = f"trainer.loss=label_ranking needs labels, but task={task.name} has free text"
        problems.add("trainer.loss", f"{text}; set trainer.loss=cross_entropy")


RULES: tuple[Rule, ...] = (
    *(((group,), partial(_values, group)) for group in sorted({key.partition(".")[0] for key in LIMITED})),
    (("task",), _task),
    (("model",), _model),
    (("scheduler",), lambda scheduler, found: _one_of(found, "scheduler.name", scheduler.name, SCHEDULES)),
    (("optimizer",), _optimizer),
    (("trainer",), _trainer),
    (("data",), _data),
    (("cache",), _folders),
    (("logger",), _logger),
    (("run",), _folders),
    (("mix", "task"), _mix),
    (("task", "evaluation"), _task_with_evaluation),
    (("task", "data"), _task_with_data),
    (("evaluation", "trainer"), _evaluation_with_trainer),
    (("task", "trainer"), _task_with_trainer),
)
