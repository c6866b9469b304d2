"""The console command ``mmpt``. Commands import what they need when they run, so that help comes at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmpt.cli import cache, convert, dashboard, hub, models, predict, report, tasks, train
from mmpt.cli.program import new_command, run

OVERVIEW = """Train and compare prefix-style adapters of a frozen language model.

First run: mmpt train task=rte method=multimask
"""

app = new_command(OVERVIEW)
methods = new_command("List the methods, or check one.")


def main(argv: list[str] | None = None) -> int:
    """Run ``mmpt`` with the arguments of this process, or others; returns the exit code of the command."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["train"]:  # Hydra's words and flags, unchanged
        return train.main(words[1:])
    return run(app, "mmpt", words or ["--help"])


@app.command("train")
def train_command() -> None:
    """Train one adapter, or many with -m."""  # for the overview: main calls it with Hydra's words


app.command()(predict.predict)
app.command()(report.report)
app.command()(dashboard.dashboard)
app.add_typer(methods, name="methods")
app.add_typer(tasks.command, name="tasks")
app.add_typer(models.command, name="models")
app.add_typer(cache.command, name="cache")
app.add_typer(hub.command, name="hub")
app.add_typer(convert.command, name="convert")


@methods.callback(invoke_without_command=True, no_args_is_help=False)
def list_methods(context: typer.Context) -> None:
    """List the methods; `mmpt methods check NAME` tests one."""
    if context.invoked_subcommand is not None:
        return
    from mmpt.methods import names, options_class

    print(f"{'method':<10} trained parameter groups")
    for name in names():
        print(f"{name:<10} {', '.join(options_class(name).GROUPS)}")
    print("\nOptions of a method: conf/method/NAME.yaml. What each method does: docs/methods.md.")


@methods.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A method, also one of your own.")],
    config_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Your folder, with DIR/method/NAME.py.")
    ] = None,
) -> int:
    """Test that a method has all properties that a method must have; exit code 1 where one is missing."""
    from mmpt.cli.methods import check as check_method

    return check_method(name, config_dir)


@methods.command()
def page() -> None:
    """Print docs/methods.md."""
    from mmpt.cli.methods_page import main as print_page

    print_page()
