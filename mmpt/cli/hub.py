"""``mmpt hub push | card``: adapters on the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmpt.cli.program import new_command

Run = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A finished run, or its adapter folder.")]
Repo = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository.")]
License = Annotated[str | None, typer.Option(metavar="ID", help="The card's license, for example mit.")]
Backbone = Annotated[
    str | None, typer.Option(metavar="ID", help="Hub id of the backbone: owner/name or owner/name@COMMIT.")
]
Runs = Annotated[
    list[Path] | None, typer.Option(metavar="DIR", help="Runs of other seeds, for the card's spread; may be repeated.")
]

command = new_command(
    "Push adapters to the Hugging Face hub.\n\nA model card is generated. The token is HF_TOKEN or that of "
    "`hf auth login`. mmpt.load and mmpt predict read hub:owner/name."
)


@command.command()
def push(
    run_dir: Run,
    repo: Repo,
    license: License = None,
    backbone: Backbone = None,
    runs: Runs = None,
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="A branch that exists.")] = None,
    keep_card: Annotated[bool, typer.Option("--keep-card", help="Leave the repository's README.md as it is.")] = False,
) -> None:
    """Push an adapter."""
    from mmpt.interop import hub

    address = hub.push(
        run_dir,
        repo,
        private=private,
        revision=revision,
        license=license,
        backbone=backbone,
        runs=runs or (),
        keep_card=keep_card,
    )
    print(address)
    if license is None and not keep_card:
        print("the card names no license; add one with --license or on the hub", file=sys.stderr)


@command.command()
def card(run_dir: Run, repo: Repo, license: License = None, backbone: Backbone = None, runs: Runs = None) -> None:
    """Print the model card, and push nothing."""
    from mmpt.interop.hub import contents

    files = contents(run_dir, repo, license=license, backbone=backbone, runs=runs or ())
    sys.stdout.write(files["README.md"].decode())
