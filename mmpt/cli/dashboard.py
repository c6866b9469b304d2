"""``python -m mmpt.dashboard --project NAME [--entity E] [--task T] [--dry-run]``."""

from __future__ import annotations

import argparse

from mmpt.cli.program import exit_code
from mmpt.runs.dashboard import build


def main(argv: list[str] | None = None) -> int:
    """Build the dashboard, or print what would be built.

    Returns:
        The exit code: 0, or 2 after an error of one line.
    """
    parser = argparse.ArgumentParser(
        prog="mmpt dashboard",
        description="Build the W&B dashboard of a project: a saved view of its workspace. Each call makes a new view.",
    )
    parser.add_argument("--project", required=True, metavar="NAME", help="the project that runs log to: logger.project")
    parser.add_argument("--entity", metavar="E", help="the user or team that owns it; the key's own where left out")
    parser.add_argument("--task", metavar="T", help="only runs of this task, compared by method")
    parser.add_argument("--dry-run", action="store_true", help="print the view as JSON; nothing is sent")
    arguments = parser.parse_args(argv)

    def run() -> int:
        print(build(arguments.project, arguments.entity, arguments.task, arguments.dry_run))
        return 0

    return exit_code(run)
