"""From the words on the command line to a composed configuration, with Hydra's own errors told in one line."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from mmpt.config.targets import folder_problems, override_problems
from mmpt.errors import ConfigError, nearest
from mmpt.sweep.definitions import sweep_options

LONGEST_KEY = 255  # Hydra looks for a file of that name


@dataclass
class CommandLine:
    """The arguments, in the form that Hydra gets.

    Attributes:
        flags: Everything that begins with a dash, with its value.
        overrides: ``key=value`` words; what Hydra would reject as unknown is forced in, for our own check to name.
        problems: What is wrong with the words themselves.
        bad_groups: Groups whose choice is wrong, so that further findings about them mean nothing.
    """

    flags: list[str]
    overrides: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    bad_groups: set[str] = field(default_factory=set)
    multirun: bool = False
    shows_config: bool = False
    shows_only: bool = False
    shows_help: bool = False
    config_dir: Path | None = None


def group_options(folders: Iterable[Path]) -> dict[str, list[str]]:
    """List the groups and their options as they lie on disk.

    Args:
        folders: Configuration folders, ours and the user's.

    Returns:
        Group name -> option names; options in subfolders as 'paper/rte', names with a leading _ left out.
    """
    options: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.glob("*/**/*.yaml"):
            group, *rest = path.relative_to(folder).with_suffix("").parts
            if group != "hydra" and not rest[-1].startswith("_"):
                options.setdefault(group, set()).add("/".join(rest))
    return {group: sorted(names) for group, names in sorted(options.items())}


def read_command_line(argv: list[str], conf: Path) -> CommandLine:
    """Sort the arguments, and find what is wrong with them before Hydra does.

    Args:
        argv: The arguments after the program's name.
        conf: The configuration folder.

    Raises:
        ConfigError: On an unknown flag or a configuration folder that isn't there.
    """
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        parsed, unknown = parser.parse_known_intermixed_args(argv)
    except ArgumentError as error:
        raise ConfigError(f"{error} (see python train.py --help)") from error
    if unknown:
        raise ConfigError(_unknown_flag(unknown[0], argv))
    folder = None if parsed.config_dir is None else Path(parsed.config_dir).expanduser().resolve()
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--config-dir {parsed.config_dir}: no such directory")
    if parsed.config_path is not None:
        raise ConfigError(f"--config-path {parsed.config_path} would replace conf/; add a folder with --config-dir DIR")
    if folder is not None and (refused := folder_problems(folder)):
        raise ConfigError(refused)
    line = CommandLine(
        flags=[word for word in argv if word not in parsed.overrides],
        multirun=bool(parsed.multirun) or any(_defines_sweep(word) for word in parsed.overrides),
        shows_only=parsed.cfg is not None or parsed.help or parsed.hydra_help or parsed.info is not None,
        shows_config=parsed.cfg in ("job", "all"),
        shows_help=bool(parsed.help),
        config_dir=folder,
    )
    if line.multirun and not parsed.multirun and not line.shows_only:
        line.flags.append("--multirun")
    options = group_options([conf] if folder is None else [conf, folder])
    for group, names in sweep_options(conf.parent / "sweeps").items():
        options[group] = sorted({*options.get(group, []), *names})
    for word in parsed.overrides:
        _read_override(word, options, line)
    return line


def compose(overrides: list[str], conf: Path, config_dir: Path | None = None) -> DictConfig:
    """Compose a configuration without running anything.

    Args:
        overrides: As in ``CommandLine.overrides``.
        conf: The configuration folder.
        config_dir: A user's own configuration folder, searched first.
    """
    extra = [] if config_dir is None else [f"hydra.searchpath=['file://{config_dir}']"]
    with initialize_config_dir(str(conf), version_base="1.3"):
        return hydra_compose("config", overrides=[*overrides, *extra])


def describe(error: Exception) -> str:
    """Tell an error of Hydra, OmegaConf or YAML in one line."""
    if isinstance(error, yaml.YAMLError):
        return f"a configuration file isn't valid YAML: {' '.join(str(error).split())}"
    texts = [str(error)] if error.__cause__ is None else [str(error), str(error.__cause__)]
    parts = [part.strip() for text in texts for part in text.split("Config search path")[0].splitlines()]
    noise = ("See http", "Set the env", "full_key", "object_type")
    return "; ".join(dict.fromkeys(part.rstrip(".") for part in parts if part and not part.startswith(noise)))


def _unknown_flag(flag: str, argv: list[str]) -> str:
    name, equals, value = flag.lstrip("-").partition("=")
    after = argv[argv.index(flag) + 1 :] if flag in argv else []
    if not equals:
        value = after[0] if after and not after[0].startswith("-") and "=" not in after[0] else "VALUE"
    return f"unknown flag {flag}; settings are written without dashes: {name}={value} (see python train.py --help)"


def _read_override(word: str, options: dict[str, list[str]], line: CommandLine) -> None:
    """Append one ``key=value`` word, or its problem, to ``line``."""
    value = word.partition("=")[2]
    try:
        override = OverridesParser.create().parse_override(word)
        key = override.key_or_group
    except HydraException:
        key = ""
    if not key:
        line.problems.append(_unreadable(word, options))
        return
    if refused := override_problems(override):
        line.problems += refused
        return
    if len(key) > LONGEST_KEY:
        line.problems.append(f"{key[:40]}... is no setting: its name has {len(key)} characters")
        return
    if override.is_sweep_override() and not line.multirun:
        line.problems.append(f"{word} names several values: add -m to train one run for each, or quote the comma")
        return
    group, slash, option = key.partition("/")
    if key in options and override.is_delete() and not isinstance(override.value(), str | None):
        line.problems.append(f"{word} names no option of {key}; leave one out by ~{key}, or ~{key}=NAME")
    elif key in options and not override.is_delete():
        line.overrides += _choice(override, options[key], line)
    elif slash and group != "hydra":
        hint = f"write {group}={option}/{value}" if group in options else f"groups are {', '.join(options)}"
        line.problems.append(f"unknown group {key}; {hint}{nearest(group, options) if group not in options else ''}")
    elif key.split(".")[0].split("/")[0] == "hydra" or override.is_delete():
        line.overrides.append(word)
    else:
        # Forced in, so that an unknown key reaches our check, which names the valid ones.
        line.overrides.append(f"++{word.lstrip('+')}")


def _choice(override: Override, names: list[str], line: CommandLine) -> list[str]:
    """Check the chosen option of a group; a wrong one is left out so that the rest can still be checked."""
    group = override.key_or_group
    word = (override.input_line or "").lstrip("+")
    if not override.is_sweep_override() and override.value() is None and group in ("experiment", "setting", "sweep"):
        return []  # the default
    if override.is_sweep_override() and group == "sweep":
        line.problems.append(f"{word} names several sweeps; give one command for each")
        return []
    chosen = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    for value in [name for item in chosen for name in (item if isinstance(item, list) else [item])]:
        if value is not None and str(value).removesuffix(".yaml") in names:
            continue
        shown = "null" if value is None else value
        line.problems.append(f"{group}={shown} isn't there; choose from: {', '.join(names)}{nearest(shown, names)}")
        line.bad_groups.add(group)
    return [] if group in line.bad_groups else [word]


def _defines_sweep(word: str) -> bool:
    key, _, value = word.lstrip("+").partition("=")
    return key == "sweep" and value not in ("", "null")


def _unreadable(word: str, options: dict[str, Any]) -> str:
    key, equals, value = word.partition("=")
    if not equals or not key:
        group = next((name for name, names in options.items() if word in names), None)
        return f"{word!r} isn't KEY=VALUE" + (f", did you mean {group}={word}?" if group else "; for example task=rte")
    quoted = value.replace('"', '\\"')
    return f"can't read {word!r}: put a value with special characters in quotes: '{key}=\"{quoted}\"'"
