"""Settings of runs: a run's configuration without its seed, read once for all runs that share it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from mmpt.runs.typed_json import whole
from mmpt.training.fingerprint import deciding
from mmpt.utils.untrusted import count_values, one_line, parse_yaml

MOST_NODES = 100_000  # values of one config.yaml; ours have some hundred
_SECTION = re.compile(r"^(?=[\w\"'])", re.M)
_SEED = re.compile(r"seed: (\d+)\s*")
_OWN = ("seed:", "run:", "logger:", "experiment:", "sweep:")  # sections that differ between runs of one setting
_ABSENT = object()


@dataclass(frozen=True)
class Settings:
    """What decides a result besides the seed; runs with equal ``key`` are repetitions of each other."""

    values: Mapping[str, Any]
    key: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """Take the settings out of a resolved configuration."""
        values = {name: value for name, value in deciding(config).items() if name != "seed"}
        return cls(values, json.dumps(values, sort_keys=True, ensure_ascii=False, default=str))

    def more(self, values: Mapping[str, Any]) -> Settings:
        """These settings and others, which no configuration has."""
        return Settings.of({**self.values, **values})

    @functools.cached_property
    def flat(self) -> dict[str, Any]:
        """The values by dotted keys, as on the command line."""
        return flatten(self.values)


def read_settings(text: str) -> tuple[Settings, int | None]:
    """Read the text of a config.yaml: its settings, one object for runs that share them, and its seed if any.

    Raises:
        ValueError: The text is not a YAML mapping.
    """
    sections = _SECTION.split(text)
    settings = _shared("".join(section for section in sections if not section.startswith(_OWN)))
    seeds = [section for section in sections if section.startswith("seed:")]
    plain = _SEED.fullmatch(seeds[-1]) if seeds else None
    seed = int(plain[1]) if plain else _parse(seeds[-1])["seed"] if seeds else None
    return settings, whole(seed)


@functools.lru_cache(maxsize=16_384)
def _shared(text: str) -> Settings:
    """Parse what seeds share: by section, which settings share too, or as a whole where sections need each other."""
    try:
        sections = [_parse(section) for section in _SECTION.split(text) if section.strip()] or [_parse(text)]
    except ValueError:
        sections = [_parse(text)]
    return Settings.of({name: value for section in sections for name, value in section.items()})


@functools.lru_cache(maxsize=16_384)
def _parse(text: str) -> dict[str, Any]:
    try:
        content = parse_yaml(text)
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(one_line(error)) from error
    if not isinstance(content, dict):
        raise ValueError("it holds no mapping")
    if count_values(content, {}) > MOST_NODES:
        raise ValueError(f"its references stand for more than {MOST_NODES:,} values")
    if _has_other_keys(content):
        raise ValueError("it has a key that is no text")
    return content


def _has_other_keys(value: Any) -> bool:
    """Whether a mapping within has a key that is no text."""
    if isinstance(value, dict):
        return not all(isinstance(name, str) for name in value) or any(map(_has_other_keys, value.values()))
    return isinstance(value, list) and any(map(_has_other_keys, value))


def flatten(values: Mapping[str, Any], prefix: str = "", dot: str = ".") -> dict[str, Any]:
    """Turn nested settings into dotted keys, as on the command line."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value and "_type" not in value:
            flat |= flatten(value, f"{prefix}{name}{dot}", dot)
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Undo :func:`flatten`."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        head, dot, rest = str(name).partition(".")
        if not dot:
            result[head] = value
        elif isinstance(result.setdefault(head, {}), dict):
            result[head][rest] = value
    return {name: nested(value) if isinstance(value, dict) else value for name, value in result.items()}


def differing(flat: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the keys that do not have one value in all settings; one that is absent somewhere differs."""
    several = list(flat)
    keys = sorted({key for one in several for key in one})
    return [key for key in keys if len({repr(one.get(key, _ABSENT)) for one in several}) > 1]


def shown(value: Any) -> str:
    """Write a setting's value as on the command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
