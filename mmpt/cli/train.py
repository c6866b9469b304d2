"""The command line: compose with Hydra, check, then run. Nothing heavy is imported before the check has passed."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mmpt.cli.program import exit_code, leads
from mmpt.config.compose import CONF, CommandLine, compose, describe, hydra_with, read_command_line, shadowed
from mmpt.config.schema import Config
from mmpt.errors import ConfigError, MmptError
from mmpt.runs.environment import untested
from mmpt.sweep.plan import register_sweeps, sweep_options
from mmpt.sweep.run import run_sweep
from mmpt.training.settings import check, find_problems, first_line, plain
from mmpt.training.signals import Stopped, handle_signals
from mmpt.utils.extensions import add_folder
from mmpt.utils.screen import new_console, program, show, show_command

SWEEPS = CONF.parent / "sweeps"
COMPOSING = (HydraException, OmegaConfBaseException, yaml.YAMLError)  # errors of the libraries that compose


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the program's name; those of this process where None.

    Returns:
        The exit code: 0 done, 1 at least one trial of a multirun failed, 2 an error the user can act on,
        130 interrupted by Ctrl-C, 143 by SIGTERM.
    """
    try:
        with handle_signals():
            return exit_code(lambda: _dispatch(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt as stop:
        print("interrupted", file=sys.stderr)
        return stop.exit_code if isinstance(stop, Stopped) else 130


def config_of(words: list[str]) -> Config:
    """The settings that a run with these words would have, for commands beside ``train``.

    Raises:
        ConfigError: With all problems, one line each.
    """
    line = read_command_line(words, CONF)
    if line.problems or (line.flags and line.config_dir is None):
        raise ConfigError(line.problems or [f"{line.flags[0]} is no setting; give KEY=VALUE"])
    if line.config_dir is not None:
        add_folder(line.config_dir)
    try:
        return check(compose(line.overrides, CONF, line.config_dir))
    except COMPOSING as error:
        raise ConfigError(describe(error)) from error


def _dispatch(argv: list[str]) -> int:
    register_sweeps(SWEEPS, CONF)
    line = read_command_line(argv, CONF, sweep_options(SWEEPS))
    if line.config_dir is not None:
        add_folder(line.config_dir)
    if line.problems:
        more = [] if line.multirun else _problems(line) or []  # all are reported together
        raise ConfigError([*line.problems, *(text for key, text in more if key.split(".")[0] not in line.bad_groups)])
    try:
        if not line.shows_only and leads():
            for text in untested():
                show(new_console(sys.stderr), f"warning: {text}")
        if line.multirun and not line.shows_only:
            return run_sweep(line, CONF, lambda trial: _hydra_main(line, trial))
        failures: list[MmptError] = []
        _hydra_main(line, lambda composed: _run(composed, line, failures))
        if failures:
            raise failures[0]
        if line.shows_config:  # a dry run: what is shown is also checked
            check(compose(line.overrides, CONF, line.config_dir))
    except COMPOSING as error:
        raise ConfigError(describe(error)) from error
    return 0


def _hydra_main(line: CommandLine, job: Callable[[DictConfig], Any]) -> None:
    entry = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    with (
        hydra_with(line.config_dir),
        _arguments([*line.flags, *line.overrides]),
        _folded() if line.shows_help else nullcontext(),
    ):
        try:
            entry()
        except SystemExit as stop:  # after --help and its kin
            if stop.code not in (None, 0):
                raise ConfigError(f"Hydra stopped with exit code {stop.code}") from stop


@contextmanager
def _folded() -> Iterator[None]:
    """Break what is printed within the block into lines that fit; Hydra's list of a group is one."""
    with redirect_stdout(io.StringIO()) as printed:
        yield
    width = new_console().width
    for text in printed.getvalue().splitlines():
        if not text.startswith("setting/"):  # of definitions in sweeps/, which choose among them
            print(textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _run(composed: DictConfig, line: CommandLine, failures: list[MmptError]) -> None:
    """One run; Hydra would print lines of its own about an error."""
    try:
        config = check(composed)
        if leads():
            show(new_console(), first_line(config, composed) + _own_files(line))
        from mmpt.training.identity import run_directory  # imports torch: only once the configuration is right
        from mmpt.training.run import run_experiment

        result = run_experiment(config, plain(config))
        if leads():
            _show_next(line, config, run_directory(config, result.config_fingerprint or ""))
    except MmptError as error:
        failures.append(error)


def _show_next(line: CommandLine, config: Config, directory: Path) -> None:
    """Commands that follow: the user's own words with one change, a report, and predictions."""
    own = [word for word in line.words if not word.lstrip("+").startswith("run.dir=")]  # it holds this run
    other = "prefix" if config.method.name != "prefix" else "multimask"
    changed = [_with_word(own, "seed", config.seed + 1), _with_word(own, "method", other)]
    commands = [[*program("train"), *words] for words in changed if _is_valid(words)]
    commands.append([*program("report"), str(directory.parent)])
    commands.append([*program("predict"), str(directory), "--input", "FILE.jsonl"])
    console = new_console()
    show(console, "next:")
    for command in commands:
        show_command(console, command)


def _with_word(words: list[str], key: str, value: object) -> list[str]:
    """The words of a command line with one setting replaced, or added."""
    keys = [word.lstrip("+").partition("=")[0] for word in words]
    if key not in keys:
        return [*words, f"{key}={value}"]
    return [f"{key}={value}" if name == key else word for name, word in zip(keys, words, strict=True)]


def _is_valid(words: list[str]) -> bool:
    line = read_command_line(words, CONF, sweep_options(SWEEPS))
    return not line.problems and _problems(line) == []


def _own_files(line: CommandLine) -> str:
    """Which files of ``--config-dir`` are read in place of ours."""
    if line.config_dir is None:
        return ""
    names = shadowed(line.config_dir, CONF, HydraConfig.get().runtime.choices)
    return f"; {line.config_dir} replaces {', '.join(names)}" if names else ""


def _problems(line: CommandLine) -> list[tuple[str, str]] | None:
    """What is wrong with the settings, by key; None where they cannot be composed."""
    try:
        return find_problems(compose(line.overrides, CONF, line.config_dir))
    except COMPOSING:
        return None


@contextmanager
def _arguments(argv: list[str]) -> Iterator[None]:
    """Give Hydra its arguments, and let it raise its errors instead of printing them and exiting."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [before[0], *argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
