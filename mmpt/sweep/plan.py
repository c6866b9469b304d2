"""What a sweep will do: its trials are counted, its engine is installed. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from mmpt.config.compose import CommandLine, hydra_with
from mmpt.errors import ConfigError
from mmpt.sweep.grid import combinations
from mmpt.sweep.isolation import cores
from mmpt.sweep.outcomes import split, trial_words, unresolved
from mmpt.training.settings import find_problems
from mmpt.utils.untrusted import parse_yaml

ENGINES = {  # launcher or sweeper -> the module it needs, and the extra that brings it
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "ray": ("ray", "ray"),
    "optuna": ("optuna", "optuna"),
}


@dataclass(frozen=True)
class Plan:
    """A sweep before it starts."""

    root: Path  # run.root
    total: int | None  # trials; None where only the sweeper knows
    launcher: str  # name of the engine
    at_once: int | None  # trials at once on this machine; None where another system decides
    repeats: bool = True  # whether another launch gives the same trials again
    constant: tuple[str, ...] = ()  # words that all trials have
    shows_all: bool = False  # whether trials print what a run prints


def plan_sweep(line: CommandLine, conf: Path) -> Plan:
    """Compose what all trials share, and count them; ``conf`` is the configuration folder.

    ConfigError: there are no trials, an engine is not installed, or all trials would share one run directory.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("torchrun runs one trial on several processes; leave out -m and sweep=, or start with python")
    parsed = OverridesParser.create().parse_overrides(line.overrides)
    shared = [word for word, override in zip(line.overrides, parsed, strict=True) if not override.is_sweep_override()]
    own = [word for word in line.overrides if not word.lstrip("+~").startswith("hydra")]
    for word in shared:
        if match := re.fullmatch(r"\+?hydra/(launcher|sweeper)=(\w+)", word):  # before Hydra looks for its files
            _require_engine(match[1], match[2])
    with hydra_with(line.config_dir), initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("config", overrides=shared, return_hydra_config=True)
        choices = config.hydra.runtime.choices
        sweeper, launcher = str(choices["hydra/sweeper"]), str(choices["hydra/launcher"])
        _require_engine("sweeper", sweeper)  # which a definition may have chosen
        _require_engine("launcher", launcher)
        if sweeper == "basic":
            trials = _trials(config, own)
            total = len(trials)
            constant = [word for word in trials[0] if all(word in trial for trial in trials)] if trials else []
        else:
            total, constant = config.hydra.sweeper.get("n_trials"), [word for word in shared if word in own]
    problems = [text for key, text in find_problems(unresolved(config)) if key.split(".")[0] in ("sweep", "run")]
    if problems:
        raise ConfigError(problems)
    if total == 0:
        raise ConfigError("the sweep has no trials: a list, a range or hydra.sweeper.n_trials is empty")
    _check_directory(config, parsed, total)
    root = Path(str(config.run.root))
    words = tuple(split(trial_words(constant)))
    at_once, shows_all = _at_once(config, launcher, total), config.sweep.output == "all"
    return Plan(root, total, launcher, at_once, sweeper == "basic", words, shows_all)


def _require_engine(kind: str, name: str) -> None:
    """Name the extra that a launcher or sweeper needs where it is not installed."""
    module, extra = ENGINES.get(name, ("", ""))
    package = module.split(".")[0]
    if module and (importlib.util.find_spec(package) is None or importlib.util.find_spec(module) is None):
        raise ConfigError(
            f"hydra/{kind}={name} needs a package that is not installed: pip install -c constraints.txt -e '.[{extra}]'"
        )


def _trials(config: DictConfig, words: list[str]) -> list[list[str]]:
    """The words of each trial, as the sweeper makes them."""
    if (size := config.hydra.sweeper.max_batch_size) is not None and (not isinstance(size, int) or size < 1):
        raise ConfigError(f"hydra.sweeper.max_batch_size={size} must be a whole number of at least 1, or null for all")
    parameters = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*parameters, *words])
    for override in overrides:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line} is a range without steps; name values, or add hydra/sweeper=optuna"
            )
    try:
        return combinations(overrides)
    except HydraException as error:
        raise ConfigError(str(error)) from error


def _check_directory(config: DictConfig, parsed: list[Any], total: int | None) -> None:
    """One run directory cannot hold several trials, and all trials of a sweep have one root."""
    if any(override.key_or_group == "run.root" and override.is_sweep_override() for override in parsed):
        raise ConfigError("run.root names several folders; a sweep has one for all of its trials")
    directory = unresolved(config)["run"]["dir"]
    swept = any(override.key_or_group == "run.dir" and override.is_sweep_override() for override in parsed)
    if directory is not None and "${" not in directory and not swept and total != 1:
        raise ConfigError(f"run.dir={directory} is one directory for many trials; name a folder for all: run.root=DIR")


def _at_once(config: DictConfig, launcher: str, total: int | None) -> int | None:
    most = total if total is not None else cores()
    if launcher == "basic":
        return 1
    if launcher == "joblib":
        jobs = int(config.hydra.launcher.n_jobs)
        return min(jobs if jobs > 0 else cores(), most)
    return most if launcher == "submitit_local" else None  # it starts all of them


def register_sweeps(folder: Path, conf: Path) -> None:
    """Give Hydra every ``NAME.yaml`` of a folder as ``sweep=NAME``, over all groups.

    A definition may bring ``settings``, each some values under a name; they become ``setting=NAME/SETTING``.
    """
    store = ConfigStore.instance()
    for path, content in _definitions(folder):
        for name, setting in content.pop("settings", {}).items():
            store.store(group=f"setting/{path.stem}", name=name, node=setting, package="_global_", provider=str(path))
        parameters = content.get("hydra", {}).get("sweeper", {}).get("params", {})
        for key in [key for key in parameters if key != "setting" and not (conf / key).is_dir()]:
            parameters[f"++{key}"] = parameters.pop(key)  # as the command line's words are, so that those replace it
        store.store(group="sweep", name=path.stem, node=content, package="_global_", provider=str(path))


def sweep_options(folder: Path) -> dict[str, list[str]]:
    """The options that a folder adds to the groups ``sweep`` and ``setting``."""
    found = list(_definitions(folder))
    settings = [f"{path.stem}/{name}" for path, content in found for name in content.get("settings", {})]
    return {"sweep": [path.stem for path, _ in found], "setting": settings}


def _definitions(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for path in sorted(folder.glob("*.yaml")):
        content = parse_yaml(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not isinstance(content.get("settings", {}), dict):
            raise ConfigError(f"{path} holds no mapping of settings; sweeps/compare.yaml is the shortest example")
        found.append((path, content))
    return found
