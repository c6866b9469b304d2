"""``mmpt tasks``: the list of tasks, a look at one with its data, and a new one from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mmpt.bundled.tasks import NAMES
from mmpt.cli.program import new_command, print_table
from mmpt.config.compose import CONF
from mmpt.errors import ConfigError
from mmpt.utils.untrusted import one_line, parse_yaml, read_text

COLUMNS = ("task", "metric", "labels", "data")
WIDEST = 40  # characters of the labels


command = new_command("List the tasks, check one, or make one.")
Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Your folder, with DIR/task/NAME.yaml.")]


@command.callback(invoke_without_command=True, no_args_is_help=False)
def tasks(context: typer.Context, config_dir: Folder = None) -> None:
    """List the tasks: metric, labels, data. `tasks check NAME` looks at one, `tasks new FILE` makes one."""
    if context.invoked_subcommand is not None:
        return
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such directory")
    folders = [CONF] if config_dir is None else [CONF, config_dir]
    files = {path.stem: path for folder in folders for path in sorted((folder / "task").glob("*.yaml"))}
    rows = [COLUMNS, *(_row(name, path) for name, path in sorted(files.items()))]
    print_table(rows)


@command.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="csv, tsv, json, jsonl, parquet, arrow: for training.")],
    text: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="A column to read; repeatable.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to answer.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The task's name; default: the file's.")] = None,
    delimiter: Annotated[str | None, typer.Option(metavar="CHAR", help="Between columns, if not as usual.")] = None,
    config_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where DIR/task/NAME.yaml is written.")] = Path(
        "mine"
    ),
) -> None:
    """Write a task's YAML file from a look at FILE; columns that are not named are guessed."""
    from mmpt.cli.tasks_new import new as new_task

    new_task(file, name, text or [], label, delimiter, config_dir)


@command.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A task, also one of your own.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As for train: data=local data.dir=DIR model=...")
    ] = None,
    config_dir: Folder = None,
) -> None:
    """Show what a model reads of a task: labels, lengths in tokens, what is cut or unknown, duplicates, prompts."""
    from mmpt.cli.tasks_check import check as check_task

    check_task(name, settings or [], config_dir)


def _row(name: str, path: Path) -> tuple[str, ...]:
    try:
        content = parse_yaml(read_text(path))
    except Exception as error:  # of YAML and of the system
        return name, "-", "-", f"{path} is unreadable ({one_line(error)[:80]})"
    if not isinstance(content, Mapping):
        return name, "-", "-", f"{path} holds no mapping of settings"
    labels = content.get("labels")
    words = ", ".join(map(str, labels)) if isinstance(labels, Mapping) else ""
    shown = words if len(words) <= WIDEST else f"{words[:WIDEST]}..."
    return name, one_line(content.get("metric", "accuracy")), one_line(shown) or "free text", _data(name, content)


def _data(name: str, task: Mapping[str, Any]) -> str:
    """The settings of ``data`` that the task can have."""
    hub = task.get("hub")
    sources = ["bundled"] if name in NAMES else []
    sources += [f"hub ({one_line(hub.get('repo'))})"] if isinstance(hub, Mapping) else []
    files = task.get("files")
    sources += [f"local ({one_line(', '.join(map(str, files.values())))})"] if isinstance(files, Mapping) else []
    return ", ".join(sources) or "-"
