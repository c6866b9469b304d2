"""Values and combinations that have the right type and are still invalid: one small function a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmpt.bundled.tasks import NAMES
from mmpt.config.schema import (
    CacheConfig,
    DataConfig,
    EvaluationConfig,
    LoggerConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SchedulerConfig,
    TaskConfig,
    TrainerConfig,
)
from mmpt.config.typed_build import Problems, is_folder
from mmpt.errors import nearest
from mmpt.utils import extensions

Rule = tuple[tuple[str, ...], Callable[..., None]]  # groups, and a function of them and of Problems
SPLITS = ("train", "validation", "test")
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt")
LOSSES = ("cross_entropy", "label_ranking")  # of mmpt.training.losses; others are files of the user
MOST = 1_000_000  # of whatever is counted: tokens, samples of a bootstrap, rows at once


def apply_rules(rules: Iterable[Rule], parts: Mapping[str, Any], problems: Problems) -> None:
    """Apply every rule whose groups are all there.

    Args:
        rules: Groups, and the function that gets them.
        parts: Group -> its value, only of groups without a wrong type.
        problems: Where findings go.
    """
    for names, rule in rules:
        if all(name in parts for name in names):
            rule(*(parts[name] for name in names), problems)


def _at_least(problems: Problems, group: str, config: Any, least: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            problems.add(f"{group}.{name}", f"{group}.{name}={value} is too small; it must be at least {least}")


def _at_most(problems: Problems, key: str, value: int, most: int) -> None:
    if value > most:
        problems.add(key, f"{key}={str(value)[:40]} is too large; it must be at most {most}")


def max_length(length: int, problems: Problems, key: str = "max_length") -> None:
    """The length to which texts are cut, of an adapter or of ``data``."""
    if length < 1:
        problems.add(key, f"{key}={length} is too small; it must be at least 1")
    _at_most(problems, key, length, MOST)


def _between(problems: Problems, key: str, value: float) -> None:
    if not 0 < value < 1:
        problems.add(key, f"{key}={value:g} must lie between 0 and 1, both excluded")


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
    if model.revision is not None and model.source != "hub":
        text = f"model.revision={model.revision} has no meaning with model.source={model.source}"
        problems.add("model.revision", f"{text}; set model.revision=null")


def _optimizer(optimizer: OptimizerConfig, problems: Problems) -> None:
    if optimizer.weight_decay < 0:
        key = "optimizer.weight_decay"
        problems.add(key, f"{key}={optimizer.weight_decay:g} must not be negative")
    if len(optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in optimizer.betas):
        problems.add("optimizer.betas", f"optimizer.betas={optimizer.betas} must be two numbers from 0 to below 1")
    for name in ("eps", "clip_threshold"):
        if getattr(optimizer, name) <= 0:
            problems.add(f"optimizer.{name}", f"optimizer.{name}={getattr(optimizer, name):g} must be positive")


def _scheduler(scheduler: SchedulerConfig, problems: Problems) -> None:
    _one_of(problems, "scheduler.name", scheduler.name, SCHEDULES)
    warmup = scheduler.warmup
    if not warmup >= 0 or (warmup >= 1 and warmup != int(warmup)):
        text = "must be a share of all steps below 1, or a whole number of steps"
        problems.add("scheduler.warmup", f"scheduler.warmup={warmup:g} {text}")


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
    _at_least(problems, "data", data, 1, "limit_train", "limit_validation", "limit_test", "num_proc")
    if data.repo is None and (data.streaming or data.config is not None or data.revision is not None):
        problems.add("data.repo", "data.config, data.revision and data.streaming need data=hub data.repo=OWNER/NAME")
    elif data.repo is not None and data.name != "hub":
        problems.add("data.repo", f"data.repo={data.repo} has no meaning with data={data.name}; add data=hub")
    max_length(data.max_length, problems, "data.max_length")
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
        text = "must name ranking, generation or both, once each"
        problems.add("evaluation.decoding", f"evaluation.decoding={evaluation.decoding} {text}")


def _logger(logger: LoggerConfig, problems: Problems) -> None:
    if not logger.project.strip():
        problems.add("logger.project", "logger.project is empty; give a name, for example mmpt")
    for name in ("tensorboard", "trackio"):
        if getattr(logger, name) and find_spec(name) is None:
            install = f"python -m pip install -c constraints.txt -e '.[{name}]'"
            problems.add(f"logger.{name}", f"logger={name} needs a package that is not installed: {install}")


def _cache(cache: CacheConfig, problems: Problems) -> None:
    if cache.max_gb <= 0:
        problems.add("cache.max_gb", f"cache.max_gb={cache.max_gb:g} must be positive; cache=ram uses no disk")
    _folder(problems, "cache.dir", cache.dir, or_null=True)


def _run(run: RunConfig, problems: Problems) -> None:
    _folder(problems, "run.dir", run.dir, or_null=True)
    _folder(problems, "run.root", run.root)


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


def _seed(seed: int, problems: Problems) -> None:
    if not 0 <= seed < 2**32:
        problems.add("seed", f"seed={seed} must lie between 0 and {2**32 - 1}")


def _task_with_evaluation(task: TaskConfig, evaluation: EvaluationConfig, problems: Problems) -> None:
    if not task.labels and "ranking" in evaluation.decoding:
        problems.add(
            "evaluation.decoding",
            f"task={task.name} has free text, so there are no labels to rank; set evaluation.decoding=[generation]",
        )


def _task_with_data(task: TaskConfig, data: DataConfig, problems: Problems) -> None:
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
    if trainer.loss == "label_ranking" and not task.labels:
        text = f"trainer.loss=label_ranking needs labels, but task={task.name} has free text"
        problems.add("trainer.loss", f"{text}; set trainer.loss=cross_entropy")


RULES: tuple[Rule, ...] = (
    (("task",), _task),
    (("model",), _model),
    (("optimizer",), _optimizer),
    (("scheduler",), _scheduler),
    (("trainer",), _trainer),
    (("data",), _data),
    (("evaluation",), _evaluation),
    (("cache",), _cache),
    (("logger",), _logger),
    (("run",), _run),
    (("seed",), _seed),
    (("task", "evaluation"), _task_with_evaluation),
    (("task", "data"), _task_with_data),
    (("evaluation", "trainer"), _evaluation_with_trainer),
    (("task", "trainer"), _task_with_trainer),
)
