"""The console command ``mmpt``. Commands import what they need when they run, so that help comes at once."""

from __future__ import annotations

import sys

from mmpt.cli import cache, convert, dashboard, hub, methods, models, predict, report, tasks, train
from mmpt.cli.program import new_command, run

OVERVIEW = """Train and compare prefix-style adapters of a frozen language model.

First run: mmpt train task=rte method=multimask
"""

app = new_command(OVERVIEW)


def main(argv: list[str] | None = None, command: str | None = None) -> int:
    """Run ``mmpt``, or one command of it, with the arguments of this process, or others; returns the exit code."""
    words = [*([] if command is None else [command]), *(sys.argv[1:] if argv is None else argv)]
    if words[:1] == ["train"]:  # Hydra's words and flags, unchanged
        return train.main(words[1:])
    return run(app, words or ["--help"])


@app.command("train")
def train_command() -> None:
    """Train one adapter, or many with -m."""  # for the overview: main calls it with Hydra's words


app.command()(predict.predict)
app.command()(report.report)
app.command()(dashboard.dashboard)
app.add_typer(methods.command, name="methods")
app.add_typer(tasks.command, name="tasks")
app.add_typer(models.command, name="models")
app.add_typer(cache.command, name="cache")
app.add_typer(hub.command, name="hub")
app.add_typer(convert.command, name="convert")
