"""``mmpt dashboard --project NAME [--entity E] [--task T] [--dry-run]``."""

from __future__ import annotations

from typing import Annotated

import typer


def dashboard(
    project: Annotated[str, typer.Option(metavar="NAME", help="The project that runs log to: logger.project.")],
    entity: Annotated[str | None, typer.Option(metavar="E", help="Its owner; the key's own where left out.")] = None,
    task: Annotated[str | None, typer.Option(metavar="T", help="Only runs of this task, by method.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the view as JSON; nothing is sent.")] = False,
) -> None:
    """Build the W&B dashboard of a project.

    It is a saved view of the project's workspace. Each call makes a new view.
    """
    from mmpt.runs.dashboard import build

    print(build(project, entity, task, dry_run))
