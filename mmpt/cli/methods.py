"""``mmpt methods``: the list of methods, and the check of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from mmpt.cli.program import new_command
from mmpt.methods import names, options_class, source_file
from mmpt.utils import extensions
from mmpt.utils.untrusted import parse_yaml, read_text

command = new_command("List the methods, or check one.")


@command.callback(invoke_without_command=True, no_args_is_help=False)
def list_methods(context: typer.Context) -> None:
    """List the methods; `mmpt methods check NAME` tests one."""
    if context.invoked_subcommand is not None:
        return
    print(f"{'method':<10} trained parameter groups")
    for name in names():
        print(f"{name:<10} {', '.join(options_class(name).GROUPS)}")
    print("\nOptions of a method: conf/method/NAME.yaml. What each method does: docs/methods.md.")


@command.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A method, also one of your own.")],
    config_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Your folder, with DIR/method/NAME.py.")
    ] = None,
) -> int:
    """Test that a method has all properties that a method must have; exit code 1 where one is missing."""
    if config_dir is not None:
        extensions.add_folder(config_dir)
    options_class(name)  # an unknown name is reported before torch is imported
    from mmpt.models.method_check import report

    values, lines = _settings(name)
    lines += report(name, values)
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
