"""From the words on the command line to a composed configuration, with Hydra's own errors in one line."""

from __future__ import annotations

import os
import re
from argparse import ArgumentError, ArgumentParser
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import __version__ as hydra_version
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

from mmpt.config.targets import folder_problems, override_problems
from mmpt.config.typed_build import is_folder
from mmpt.errors import ConfigError, nearest

CONF = Path(__file__).resolve().parents[2] / "conf"
LONGEST_KEY = 255  # Hydra looks for a file of that name
SEVERAL = ("logger", "experiment")  # groups of which a run may have several options
HELP = "(see python train.py --help)"


@dataclass
class CommandLine:
    """The arguments, in the form that Hydra gets."""

    words: list[str]  # all of them, as they were typed
    flags: list[str]  # everything that begins with a dash, with its value
    # key=value words; what Hydra would reject as unknown is forced in, for our own check to name
    overrides: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # what is wrong with the words themselves
    # groups whose choice is wrong, so that further findings about them mean nothing
    bad_groups: set[str] = field(default_factory=set)
    multirun: bool = False
    shows_config: bool = False
    shows_only: bool = False
    shows_help: bool = False
    config_dir: Path | None = None


class UserFolder(SearchPathPlugin):
    """Searches the folder of ``--config-dir`` before ours."""

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """See the base class."""
        if self.folder is not None:
            search_path.prepend("--config-dir", f"file://{self.folder}", anchor="main")


@contextmanager
def hydra_with(config_dir: Path | None) -> Iterator[None]:
    """Hydra as if nobody had initialised it, which a notebook may have; the user's folder is searched first."""
    Plugins.instance().register(UserFolder)
    before, folder = GlobalHydra.instance().hydra, UserFolder.folder
    GlobalHydra.instance().clear()
    UserFolder.folder = config_dir
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, UserFolder.folder = before, folder


def compose(
    overrides: list[str], conf: Path, config_dir: Path | None = None, return_hydra_config: bool = False
) -> DictConfig:
    """Compose a configuration from ``CommandLine.overrides`` without running anything."""
    with hydra_with(config_dir), initialize_config_dir(str(conf), version_base="1.3"):
        return hydra_compose("config", overrides=overrides, return_hydra_config=return_hydra_config)


def group_options(folders: Iterable[Path]) -> dict[str, list[str]]:
    """List the options of each group on disk; those in subfolders as 'paper/rte', without names that begin with _."""
    options: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.glob("*/**/*.yaml"):
            group, *rest = path.relative_to(folder).with_suffix("").parts
            if group != "hydra" and not rest[-1].startswith("_"):
                options.setdefault(group, set()).add("/".join(rest))
    return {group: sorted(names) for group, names in sorted(options.items())}


def read_command_line(argv: list[str], conf: Path, more: Mapping[str, list[str]] | None = None) -> CommandLine:
    """Sort the arguments after the program's name, and find what is wrong with them before Hydra does.

    ``conf`` is the configuration folder; ``more`` has options by group that lie elsewhere.

    Raises:
        ConfigError: On an unknown flag or a configuration folder that does not exist.
    """
    try:
        parsed, unknown = _flags().parse_known_intermixed_args(argv)
    except ArgumentError as error:
        raise ConfigError(f"{error} {HELP}") from error
    if unknown:
        raise ConfigError(_unknown_flag(unknown[0], argv))
    if parsed.resolve and parsed.cfg is None and not parsed.help:
        raise ConfigError("--resolve shows values without references; add --cfg job")
    if parsed.package is not None and parsed.cfg is None:
        raise ConfigError(f"--package {parsed.package} shows a part of the configuration; add --cfg job")
    if parsed.config_path is not None:
        raise ConfigError(f"--config-path {parsed.config_path} would replace conf/; add a folder with --config-dir DIR")
    line = CommandLine(
        words=list(argv),
        flags=[word for word in argv if word not in parsed.overrides],
        multirun=bool(parsed.multirun) or any(_defines_sweep(word) for word in parsed.overrides),
        shows_only=parsed.cfg is not None or parsed.help or parsed.hydra_help or parsed.info is not None,
        shows_config=parsed.cfg in ("job", "all"),
        shows_help=bool(parsed.help),
        config_dir=None if parsed.config_dir is None else _user_folder(parsed.config_dir, conf),
    )
    if parsed.shell_completion:
        return replace(line, overrides=_completion(parsed.overrides), multirun=False, shows_only=True)
    if line.multirun and not parsed.multirun and not line.shows_only:
        line.flags.append("--multirun")
    options = group_options([conf] if line.config_dir is None else [conf, line.config_dir])
    for group, names in (more or {}).items():
        options[group] = sorted({*options.get(group, []), *names})
    for word in parsed.overrides:
        _read_override(word, options, line)
    return line


def shadowed(config_dir: Path, conf: Path, choices: Mapping[str, Any]) -> list[str]:
    """The user's files that a configuration reads in place of ours of the same name, by the option of each group."""
    names = (f"{group}/{option}.yaml" for group, option in sorted(choices.items()))
    return [name for name in names if (config_dir / name).is_file() and (conf / name).is_file()]


def describe(error: Exception) -> str:
    """Put an error of Hydra, OmegaConf or YAML in one line."""
    if isinstance(error, yaml.YAMLError):
        return f"a configuration file is no valid YAML: {' '.join(str(error).split())}"
    texts = [str(error)] if error.__cause__ is None else [str(error), str(error.__cause__)]
    parts = [part.strip() for text in texts for part in text.split("Config search path")[0].splitlines()]
    noise = ("See http", "Set the env", "full_key", "object_type")
    return "; ".join(dict.fromkeys(part.rstrip(".") for part in parts if part and not part.startswith(noise)))


def _flags() -> ArgumentParser:
    """The flags that Hydra reads again later: all that it knows but ``--experimental-rerun``, which reads a pickle."""
    parser = ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--version", action="version", version=f"Hydra {hydra_version}")
    for name, short in {"help": "h", "run": "r", "multirun": "m", "shell-completion": "sc"}.items():
        parser.add_argument(f"--{name}", f"-{short}", action="store_true")
    for name in ("hydra-help", "resolve"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    for name, short in {"package": "p", "config-path": "cp", "config-name": "cn", "config-dir": "cd"}.items():
        parser.add_argument(f"--{name}", f"-{short}")
    topics = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=topics)
    return parser


def _completion(words: list[str]) -> list[str]:
    """The word that goes with ``--shell-completion``, which is no setting; a shell that asks sets ``COMP_LINE``."""
    verbs = "install|uninstall|query" if "COMP_LINE" in os.environ else "install|uninstall"
    if len(words) != 1 or not re.fullmatch(rf"({verbs})=(bash|fish|zsh)", words[0]):
        raise ConfigError("--shell-completion needs install=SHELL or uninstall=SHELL; shells are bash, fish and zsh")
    return words


def _user_folder(name: str, conf: Path) -> Path:
    if not name.strip() or not is_folder(name):
        raise ConfigError(f"--config-dir {name!r}: no such directory")
    folder = Path(name).expanduser().resolve()
    if (folder / "config.yaml").exists():
        raise ConfigError(
            f"{folder / 'config.yaml'} would replace ours; put a preset into {folder}/experiment/NAME.yaml"
        )
    if problems := folder_problems(folder, [path.name for path in conf.iterdir()]):
        raise ConfigError(problems)
    return folder


def _unknown_flag(flag: str, argv: list[str]) -> str:
    name, equals, value = flag.lstrip("-").partition("=")
    after = argv[argv.index(flag) + 1 :] if flag in argv else []
    if not equals:
        value = after[0] if after and not after[0].startswith("-") and "=" not in after[0] else "VALUE"
    return f"unknown flag {flag}; settings are written without dashes: {name}={value} {HELP}"


def _read_override(word: str, options: Mapping[str, list[str]], line: CommandLine) -> None:
    """Append one ``key=value`` word, or its problem, to ``line``."""
    try:
        override = OverridesParser.create().parse_override(word)
        key = override.key_or_group
        problems = override_problems(override)
    except (HydraException, ValueError):  # also a number of very many digits, or a range without end
        key, problems = "", [_unreadable(word, options)]
    problems = problems or list(filter(None, [_wrong_key(word, override, options, line.multirun)]))
    if problems:
        line.problems += problems
    elif key in options and not override.is_delete():
        line.overrides += _choice(override, options[key], line)
    elif key.split(".")[0].split("/")[0] == "hydra" or override.is_delete():
        line.overrides.append(word)
    else:
        # Forced in, so that an unknown key reaches our check, which names the valid ones.
        name = "method.lr" if key in ("lr", "learning_rate") else key  # the check names the groups that have a rate
        line.overrides.append(f"++{name}={word.partition('=')[2]}")


def _wrong_key(word: str, override: Override, options: Mapping[str, list[str]], multirun: bool) -> str | None:
    """What is wrong with a word whose syntax is right, except the choice of a group."""
    key, value = override.key_or_group, word.partition("=")[2]
    group, slash, option = key.partition("/")
    if isinstance(override.value(), Glob):
        return f"{word}: glob() is not supported; name the options: {key}=A,B"
    if key == "hydra":
        return f"{word} sets no key of Hydra; name one, as in hydra.sweeper.n_trials=20"
    if not multirun and re.match(r"hydra[./](launcher|sweeper|sweep|mode)\b", key):
        return f"{word} has an effect on many trials only; add -m"
    if len(key) > LONGEST_KEY:
        return f"{key[:40]}... is no setting: its name has {len(key)} characters"
    if override.is_sweep_override() and not multirun:
        cure = f"write '{key}=[{value}]' for a run with all of them" if key in SEVERAL else "quote the comma"
        return f"{word} names several values: add -m to train one run for each, or {cure}"
    if key in options and override.is_delete() and not isinstance(override.value(), str | None):
        return f"{word} names no option of {key}; leave one out by ~{key}, or ~{key}=NAME"
    if key not in options and slash and group != "hydra":
        if group in options:
            return f"unknown group {key}; write {group}={option}/{value}"
        return f"unknown group {key}; groups are {', '.join(options)}{nearest(group, options)}"
    return None


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
    if group not in SEVERAL and any(isinstance(item, list) for item in chosen):
        line.problems.append(f"{word} names several options; a run has one: {group}={names[0]}")
        line.bad_groups.add(group)
        return []
    for value in [name for item in chosen for name in (item if isinstance(item, list) else [item])]:
        if value is not None and str(value).removesuffix(".yaml") in names:
            continue
        shown = "null" if value is None else value
        line.problems.append(f"{group}={shown} does not exist; choose from: {', '.join(names)}{nearest(shown, names)}")
        line.bad_groups.add(group)
    return [] if group in line.bad_groups else [word]


def _defines_sweep(word: str) -> bool:
    key, _, value = word.lstrip("+").partition("=")
    return key == "sweep" and value not in ("", "null")


def _unreadable(word: str, options: Mapping[str, list[str]]) -> str:
    key, equals, value = word.partition("=")
    if len(word) > LONGEST_KEY:
        return f"cannot read {word[:40]}..., which has {len(word)} characters; put a value in quotes"
    if not equals or not key:
        group = next((name for name, names in options.items() if word in names), None)
        return f"{word!r} is not KEY=VALUE" + (f", did you mean {group}={word}?" if group else "; for example task=rte")
    quoted = value.replace('"', '\\"')
    return f"cannot read {word!r}: put a value with special characters in quotes: '{key}=\"{quoted}\"'"
