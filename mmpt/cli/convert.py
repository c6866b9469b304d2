"""``mmpt convert to-peft | from-peft``: plain prefixes in peft's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpt.cli.program import new_command

Adapter = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run, or its adapter folder.")]
Peft = Annotated[Path, typer.Argument(metavar="PEFT_DIR", help="A folder in peft's format.")]

command = new_command("Convert prefixes to and from peft's format.\n\nOf plain prefixes of decoder-only models.")


@command.command("to-peft")
def to_peft(
    run_dir: Adapter,
    target: Peft,
    model: Annotated[str | None, typer.Option(metavar="DIR", help="Where the run's backbone is now.")] = None,
) -> None:
    """Write a run's prefix as peft does."""
    from mmpt.interop import convert

    convert.to_peft(run_dir, target, model=model)


@command.command("from-peft")
def from_peft(
    source: Peft,
    target: Adapter,
    settings: Annotated[list[str], typer.Argument(metavar="SETTING", help="task=..., model=..., as of train.")],
) -> None:
    """Make an adapter of a prefix that peft trained."""
    from mmpt.interop import convert

    convert.from_peft(source, target, settings)
