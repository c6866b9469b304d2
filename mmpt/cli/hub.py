"""``python -m mmpt.hub push RUN_DIR owner/name`` and ``python -m mmpt.hub card RUN_DIR owner/name``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmpt.cli.program import exit_code


def main(argv: list[str] | None = None) -> int:
    """Push an adapter, or show the card it would get.

    Returns:
        The exit code: 0, or 2 after an error told in one line.
    """
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from mmpt.interop.hub import contents, push

    what = {"license": arguments.license, "backbone": arguments.backbone, "runs": arguments.runs}
    if arguments.command == "card":
        sys.stdout.write(contents(arguments.run, arguments.repo, **what)["README.md"].decode())
        return 0
    options = {"private": arguments.private, "revision": arguments.revision, "keep_card": arguments.keep_card}
    print(push(arguments.run, arguments.repo, **what, **options))
    if arguments.license is None and not arguments.keep_card:
        print("the card names no license; add one with --license or on the hub", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmpt.hub",
        description="Push adapters to a repository of the Hugging Face hub, with a generated model card. The token is "
        "HF_TOKEN or that of `hf auth login`; mmpt.load and mmpt.predict take hub:owner/name.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("push", "push an adapter"), ("card", "print the card, and push nothing")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("run", metavar="RUN_DIR", type=Path, help="a finished run, or its adapter folder")
        command.add_argument("repo", metavar="OWNER/NAME", help="the repository")
        command.add_argument("--license", metavar="ID", help="the card's license, for example mit; by default none")
        command.add_argument(
            "--backbone", metavar="ID", help="hub id of the backbone (owner/name or owner/name@COMMIT)"
        )
        command.add_argument(
            "--runs", metavar="DIR", nargs="+", type=Path, default=(), help="runs of other seeds, for the card's spread"
        )
        if name == "push":
            command.add_argument("--private", action="store_true", help="create the repository as a private one")
            command.add_argument("--revision", metavar="BRANCH", help="a branch that exists; by default the main one")
            command.add_argument("--keep-card", action="store_true", help="leave the repository's README.md as it is")
    return parser


if __name__ == "__main__":
    sys.exit(main())
