"""What a configuration may have constructed: Hydra makes objects of names, and only ours may be named.

A folder given by ``--config-dir`` may come from elsewhere, and words may come from a sweep's server: docs/security.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Glob, Override

from mmpt.utils.untrusted import one_line, parse_yaml, read_text

TARGETS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_plugins.mmpt_basic.GridSweeper",
    "hydra_plugins.mmpt_optuna.OptunaSweeper",
    "hydra_plugins.mmpt_ray.RayLauncher",
)
_LOGGING = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter")
_NAMES = {"_target_": TARGETS, "()": (), "class": _LOGGING}  # what Hydra and Python's logging construct objects of


def folder_problems(folder: Path, groups: Collection[str] = ()) -> list[str]:
    """Look for objects that the files of a folder would construct, and for files that hold no settings: one line each.

    Hydra reads the subfolders that ``groups`` names, and reports a file that is no YAML.
    """
    found: list[str] = []
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        try:
            content = parse_yaml(read_text(path))
        except (OSError, yaml.YAMLError):
            continue
        except ValueError as error:  # also what is not UTF-8
            found.append(f"{path} cannot be read: {one_line(error)}")
            continue
        if content is not None and not isinstance(content, Mapping) and path.relative_to(folder).parts[0] in groups:
            found.append(f"{path} holds {one_line(content)[:40]!r}, not a mapping of settings (KEY: VALUE)")
        found += [f"{path}: {text}" for text in _refused(content)]
    return found


def override_problems(override: Override) -> list[str]:
    """Look for objects that a word of the command line would have made: one line each."""
    key = str(override.key_or_group)
    if key.startswith("hydra.searchpath"):
        return ["hydra.searchpath cannot be set; give a folder of configurations with --config-dir DIR"]
    if isinstance(override.value(), Glob) or (override.is_sweep_override() and not override.is_discrete_sweep()):
        return []  # a range of numbers, or what is refused anyway
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    return [text for value in values for text in _refused({key.rpartition(".")[2]: value})]


def _refused(content: Any) -> Iterator[str]:
    """One line for each name of an object that is not allowed; a node that YAML repeats is looked at once."""
    waiting, seen = [content], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, Mapping | list):
            continue
        seen.add(id(node))
        if isinstance(node, Mapping):
            for name, allowed in _NAMES.items():
                if name in node and node[name] not in allowed and not (name == "class" and not _named(node[name])):
                    choice = f"allowed: {', '.join(allowed)}" if allowed else "it is never allowed"
                    yield f"{name}={one_line(node[name])} would construct an object that is not ours; {choice}"
        waiting += node.values() if isinstance(node, Mapping) else node


def _named(value: Any) -> bool:
    """Whether ``class`` may name a Python class, and is not a label or a column of a task."""
    return isinstance(value, str) and "." in value
