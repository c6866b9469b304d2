"""From plain values to a typed :class:`Config`, or to every problem at once. Imports nothing heavy.

What is known only above this layer (methods, tasks, architectures) is handed in by :mod:`mmpt.training.settings`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt.config.parsers import INSTEAD
from mmpt.config.rules import Rule, apply_rules
from mmpt.config.schema import Config
from mmpt.config.typed_build import INVALID, Problems, build, fields_of, unknown
from mmpt.utils.secrets import holding_secrets

Parser = Callable[[Any, Problems], Any]  # plain values of a group -> its dataclass, or INVALID


def examine(
    composed: DictConfig | Mapping[str, Any],
    parsers: Mapping[str, Parser],
    join: Callable[[dict[str, Any], Problems], None],
    rules: Sequence[Rule],
) -> tuple[Config | None, Problems]:
    """Check types, then values and combinations, of what Hydra composed, or of the same as plain data.

    ``parsers`` build some groups, instead of the annotations of their dataclass; ``join`` gets the valid groups, and
    fills in what one leaves to another. Returns the configuration, None where there are problems; and the problems.
    """
    problems = Problems()
    try:
        values: Any = OmegaConf.to_container(composed, resolve=True) if isinstance(composed, DictConfig) else composed
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        problems.add(key, f"{key} cannot be resolved: {str(error).splitlines()[0]}")
        return None, problems
    for key, holder in holding_secrets(values):
        problems.add(
            key, f"{key} holds a secret ({holder}); settings are written to files, so leave it in the environment"
        )
    parts = _parts(values, parsers, problems)
    join(parts, problems)
    apply_rules(rules, parts, problems)
    return (None if problems.found else Config(**parts)), problems


def plain(config: Config) -> dict[str, Any]:
    """Write a checked configuration as plain data that can be checked again; ``method`` is flat."""
    values = dataclasses.asdict(config)
    method = values["method"]
    values["method"] = {"name": method["name"], **method["options"], "lr": method["lr"]}
    return values


def _parts(values: Mapping[str, Any], parsers: Mapping[str, Parser], problems: Problems) -> dict[str, Any]:
    """Every group without a wrong type, by name."""
    hints = fields_of(Config)
    parts: dict[str, Any] = {}
    for name in values:
        if name not in hints:
            group = next((group for group, kind in hints.items() if name in getattr(kind, "__annotations__", ())), None)
            near = f"; did you mean {group}.{name}?" if group else ""
            instead = f"{name} cannot be set: {INSTEAD[name]}" if name in INSTEAD else None
            problems.add(str(name), instead or unknown(str(name), str(name), hints) + near)
    for item in dataclasses.fields(Config):
        if item.name not in values:
            if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                problems.add(item.name, f"{item.name} is missing; add {item.name}=... (see python train.py --help)")
            continue
        value, parser = values[item.name], parsers.get(item.name)
        part = build(hints[item.name], value, item.name, problems) if parser is None else parser(value, problems)
        if part is not INVALID:
            parts[item.name] = part
    return parts
