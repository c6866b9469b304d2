"""``mmpt methods``: the page of all methods, and the check of one."""

from __future__ import annotations

from pathlib import Path

import yaml

from mmpt.cli.methods_page import main as page
from mmpt.methods import options_class, source_file
from mmpt.utils import extensions
from mmpt.utils.untrusted import parse_yaml, read_text

__all__ = ["check", "page"]


def check(name: str, config_dir: Path | None = None) -> int:
    """Run a method, also one of the user's folder, through the properties that every method must have.

    Returns:
        The exit status: 0 where nothing is wrong.

    Raises:
        ConfigError: No such method, or its file is wrong.
    """
    if config_dir is not None:
        extensions.add_folder(config_dir)
    options_class(name)  # an unknown name is reported before torch is imported
    from mmpt.models.method_check import report

    values, lines = _settings(name)
    lines += [str(problem) for problem in report(name, values)]
    for line in lines:
        print(f"method={name}: {line}")
    print(f"method={name}: {len(lines)} problems" if lines else f"method={name}: no problem found")
    return 1 if lines else 0


def _settings(name: str) -> tuple[dict[str, object], list[str]]:
    """The options that the user's YAML file sets, and what is wrong with that file."""
    source = source_file(name)
    if source is None:
        return {}, []
    path = source.with_suffix(".yaml")
    try:
        content = parse_yaml(read_text(path))
    except (OSError, ValueError, yaml.YAMLError):
        return {}, [f"{path} is missing or no YAML; it lists name, every option, and lr for each group"]
    if not isinstance(content, dict):
        return {}, [f"{path} must be a mapping of name, options and lr"]
    rates = content.pop("lr", None)
    stated = content.pop("name", None)
    problems = [] if stated == name else [f"{path} has name: {stated}; write name: {name}"]
    groups = options_class(name).GROUPS
    if not isinstance(rates, dict) or set(rates) != set(groups):
        problems.append(f"{path} must have a learning rate under lr for each group: {', '.join(groups)}")
    return content, problems
