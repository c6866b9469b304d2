"""What an experiment may say: the checks of :mod:`mmpt.config`, with the methods, tasks and architectures there are.

Imports no torch, so that a mistake is reported within a second.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from omegaconf import DictConfig

from mmpt.attention.architectures import ARCHITECTURES, architecture_of, refuse_dtype
from mmpt.config.check import examine, local_model, plain, trainer
from mmpt.config.rules import RULES, Rule, max_length
from mmpt.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    MethodConfig,
    MixConfig,
    ModelConfig,
    TaskConfig,
    TrainerConfig,
)
from mmpt.config.typed_build import INVALID, Problems, build, shown
from mmpt.data.mixture import check_parts, task_of
from mmpt.errors import ConfigError, MmptError, nearest
from mmpt.methods import options_class, parse
from mmpt.methods.options import HEAD, HEAD_RATE
from mmpt.training.fingerprint import has_head
from mmpt.utils import extensions
from mmpt.utils.machine import fast_dtype
from mmpt.utils.untrusted import read_text

__all__ = ["check", "find_problems", "first_line", "plain"]


def check(composed: DictConfig | Mapping[str, Any]) -> Config:
    """Type-check what Hydra composed, or the same as plain data, and its combinations; ``method`` is flat.

    Returns:
        The configuration, with every option that was left out filled in.

    Raises:
        ConfigError: With all problems, one line each.
    """
    config, problems = examine(composed, _PARSERS, _join, RULES + REGISTERED)
    if config is None:
        raise ConfigError([text for _, text in problems.found])
    return config


def find_problems(composed: DictConfig | Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the problems of a configuration as (dotted key, line)."""
    return examine(composed, _PARSERS, _join, RULES + REGISTERED)[1].found


def first_line(config: Config, composed: Mapping[str, Any] | DictConfig) -> str:
    """What is going to run, in which type of numbers, and where; ``model.dtype=auto`` of ``composed`` is explained."""
    name = f"{config.task.name}-{config.method.name}-{config.model.name}-s{config.seed}"
    where = f"{config.run.root.rstrip('/')}/{name}-*" if config.run.dir is None else config.run.dir
    bits = "" if config.model.quantization == "none" else f" in {config.model.quantization}"
    what = f"{config.task.name} with {config.method.name} on {config.model.name}{bits}, seed {config.seed}"
    if composed["model"]["dtype"] == "auto":
        why = "its weights are trained" if config.method.options.trains_all else fast_dtype()[1]
        what += f", {config.model.dtype} ({why})"
    return f"mmpt: {what}; directory: {where}"


def _method(value: Any, problems: Problems) -> Any:
    """Split the flat group into options and learning rates, and check both by the method's own declaration."""
    flat = dict(value) if isinstance(value, Mapping) else {"name": value}
    name, rates = flat.pop("name", None), flat.pop("lr", {})
    before = len(problems.found)
    try:
        kind = options_class(name)
    except ConfigError as error:
        problems.extend("method.name", error)
        return INVALID
    options = INVALID
    try:
        options = parse(name, flat)
    except ConfigError as error:
        for text in error.problems:
            key = re.match(r"(unknown key )?(method\.\w+)", text)
            problems.add("method" if key is None else key[2], text)
    if isinstance(rates, int | float):  # method.lr=0.1, or lr=0.1
        groups = kind.GROUPS if options is INVALID else options.groups()
        each = " ".join(f"method.lr.{group}={shown(rates)}" for group in groups)
        problems.add("method.lr", f"each parameter group of method={name} has its own learning rate; set {each}")
        return INVALID
    rates = build(dict[str, float], rates, "method.lr", problems)
    if len(problems.found) > before:
        return INVALID
    _rates(str(name), rates, options.groups(), (*kind.GROUPS, HEAD), problems)
    return MethodConfig(str(name), options, rates)


def _rates(
    method: str, rates: dict[str, float], present: tuple[str, ...], known: tuple[str, ...], problems: Problems
) -> None:
    """Every group that is trained needs a learning rate, and no other has one."""
    for group in present:
        if group not in rates:
            text = f"method.lr.{group} is missing: method={method} trains {', '.join(present)}"
            problems.add(f"method.lr.{group}", text)
    for group, rate in rates.items():
        key = f"method.lr.{group}"
        if group not in known:
            text = f"unknown key {key}; groups of method={method}: {', '.join(known)}{nearest(group, known)}"
            problems.add(key, text)
        elif rate <= 0:
            problems.add(key, f"{key}={rate:g} must be a positive number")


def _join(parts: dict[str, Any], problems: Problems) -> None:
    """Fill in the tasks of a mixture, and what the method leaves to the architecture where that is known already."""
    if "task" in parts and not parts["task"].template:
        before = len(problems.found)
        if "mix" in parts:
            parts["task"] = dataclasses.replace(parts["task"], parts=_mixed(parts["task"], parts["mix"], problems))
        if "mix" not in parts or len(problems.found) > before:
            del parts["task"]  # further findings about it would mean nothing
    if "method" not in parts or "model" not in parts:
        return
    method, architecture = parts["method"], parts["model"].architecture
    if has_head(architecture):
        method = dataclasses.replace(method, lr={HEAD: HEAD_RATE, **method.lr})
    elif HEAD in method.lr:
        text = f"method.lr.head has no effect with model.architecture={architecture}, which has no classification head"
        problems.add("method.lr.head", f"{text}; leave it out")
    if architecture in ARCHITECTURES:
        try:
            method = dataclasses.replace(method, options=method.options.for_architecture(architecture))
        except ConfigError as error:
            problems.extend("method", error)
    parts["method"] = method
    if parts["model"].dtype == "auto":  # of a run, the record holds the type itself
        dtype = "float32" if method.options.trains_all else fast_dtype()[0]
        parts["model"] = dataclasses.replace(parts["model"], dtype=dtype)


def _mixed(task: TaskConfig, mix: MixConfig, problems: Problems) -> dict[str, TaskConfig]:
    """The tasks that ``mix.tasks`` names; those of a record are in it."""
    found: dict[str, TaskConfig] = dict(task.parts)
    if doubled := next((name for name in mix.tasks if mix.tasks.count(name) > 1), None):
        problems.add("mix.tasks", f"mix.tasks names {doubled} twice; name each task once")
    for name in mix.tasks:
        files = extensions.configurations("task")
        if name not in files or name == task.name:
            known = sorted(files.keys() - {task.name})
            text = f"mix.tasks names {name}, which is no task; choose from: {', '.join(known)}{nearest(name, known)}"
            problems.add("mix.tasks", text)
        elif name not in found:
            part = build(TaskConfig, yaml.safe_load(read_text(files[name])), f"mix.tasks ({name})", problems)
            found |= {} if part is INVALID else {name: part}
    try:
        if not problems.found:
            check_parts(found)
    except ConfigError as error:
        problems.extend("mix.tasks", error)
    return found


_PARSERS: dict[str, Callable[[Any, Problems], Any]] = {
    "method": _method,
    "model": local_model,
    "trainer": trainer,
}


def _task(task: TaskConfig, problems: Problems) -> None:
    try:
        task_of(task)  # the template, the labels and the metric are checked where they are used
    except ConfigError as error:
        problems.extend("task", error)


def _architecture(model: ModelConfig, problems: Problems) -> None:
    if model.architecture == "auto":
        return
    try:
        architecture = architecture_of(model.architecture)
    except MmptError as error:
        problems.add("model.architecture", f"model.architecture={model.architecture}: {error}")
        return
    if architecture.soft_capped and model.attention != "eager":
        text = f"model.architecture={model.architecture} caps its attention scores, which sdpa cannot"
        problems.add("model.attention", f"{text}; set model.attention=eager")
    try:
        refuse_dtype(model.architecture, model.dtype)
    except ConfigError as error:
        problems.extend("model.dtype", error)


def _head(model: ModelConfig, evaluation: EvaluationConfig, task: TaskConfig, problems: Problems) -> None:
    """What a classification head cannot do, where it is known to be one before the model is loaded."""
    if model.architecture not in ARCHITECTURES or not has_head(model.architecture):
        return
    what = f"model.architecture={model.architecture} has a classification head and writes no text"
    if task.parts:
        problems.add("model.architecture", f"{what}, so it cannot learn a mixture of tasks; choose another model")
    elif not task.labels:
        problems.add("model.architecture", f"{what}, but task={task.name} has free text; choose another model")
    elif task.shots:
        problems.add("task.shots", f"{what}, so it reads no examples before a text; set task.shots=0")
    elif "generation" in evaluation.decoding:
        problems.add("evaluation.decoding", f"{what}; set evaluation.decoding=[ranking]")


def _data_with_method(data: DataConfig, method: MethodConfig, problems: Problems) -> None:
    most = method.options.text_limit
    if most is not None and most < data.max_length:
        text = (
            f"method.max_length={most} leaves source tokens up to data.max_length={data.max_length} without an update"
        )
        problems.add("method.max_length", f"{text}; set method.max_length={data.max_length}")


def _model_with_method(model: ModelConfig, method: MethodConfig, problems: Problems) -> None:
    if method.options.trains_all and model.quantization != "none":
        text = f"model.quantization={model.quantization}: method={method.name} trains the network's own weights"
        problems.add("model.quantization", f"{text}, which cannot be integers; set model.quantization=none")
    elif model.quantization != "none" and model.dtype not in method.options.QUANTISED:
        text = f"model.dtype={model.dtype}: with model.quantization={model.quantization}, method={method.name} works in"
        problems.add("model.dtype", f"{text} {', '.join(method.options.QUANTISED)}; set model.dtype=float32")
    if method.options.trains_all and model.dtype != "float32":
        text = f"model.dtype={model.dtype}: method={method.name} trains the network's own weights, which are float32"
        problems.add("model.dtype", f"{text}; leave model.dtype out, and set trainer.bf16=true for mixed precision")
    if model.dropout != "none" and method.options.reads != "embedding":
        problems.add(
            "method.router_input",
            "method.router_input=encoder and layer_below read hidden states that must be constants, but "
            f"model.dropout={model.dropout} drops out in them; set model.dropout=none or method.router_input=embedding",
        )


def _devices(model: ModelConfig, method: MethodConfig, trainer: TrainerConfig, problems: Problems) -> None:
    if model.device_map is None:
        return
    inside = method.options.trains_all or hasattr(method.options, "target_modules")
    for wrong, why in (
        (inside, f"method={method.name} trains inside of layers, whose weights come and go; choose another method"),
        (model.source == "random", "model.source=random has no checkpoint to read layers from; set model.path=DIR"),
        (model.quantization != "none", f"model.quantization={model.quantization} needs one device; set it to none"),
        (trainer.torch_compile, "trainer.torch_compile=true cannot compile it; set trainer.torch_compile=false"),
        (int(os.environ.get("WORLD_SIZE", "1")) > 1, "one process has all devices; start it without torchrun"),
    ):
        if wrong:
            problems.add("model.device_map", f"model.device_map=auto: {why}, or leave model.device_map out")


def _evaluation_with_method(evaluation: EvaluationConfig, method: MethodConfig, problems: Problems) -> None:
    if evaluation.key_cache == "static" and method.options.has_positions:
        text = "evaluation.key_cache=static does not work with method.layout=paper, whose prefix has positions"
        problems.add("evaluation.key_cache", f"{text}; set evaluation.key_cache=dynamic")


REGISTERED: tuple[Rule, ...] = (
    (("task",), _task),
    (("model",), _architecture),
    (("max_length",), max_length),  # of an adapter
    (("model", "evaluation", "task"), _head),
    (("data", "method"), _data_with_method),
    (("model", "method"), _model_with_method),
    (("model", "method", "trainer"), _devices),
    (("evaluation", "method"), _evaluation_with_method),
)
