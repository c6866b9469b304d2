"""What all commands share: how they are called, and how they end."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence

import typer

from mmpt.errors import ConfigError, MmptError
from mmpt.utils.screen import new_console, show
from mmpt.utils.secrets import error_line

RANK_SECONDS = 10.0
# typer's errors about a wrong call; the class has no public name of its own
USAGE: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def new_command(help: str) -> typer.Typer:
    """An empty command with the settings of all of ours: plain text, no completion."""
    return typer.Typer(
        help=help, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
    )


def run(command: typer.Typer, argv: list[str]) -> int:
    """Run ``mmpt`` with arguments.

    Returns:
        The exit code: what the command returned, 2 after an error of one line.
    """

    def work() -> int:
        try:
            code = command(args=argv, prog_name="mmpt", standalone_mode=False)
        except USAGE as error:
            text: str = error.format_message()  # type: ignore[attr-defined]
            if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command explains itself
                print(text)
                return 2
            path = getattr(getattr(error, "ctx", None), "command_path", "mmpt")
            raise ConfigError(f"{' '.join(text.split()).rstrip('.')} (see {path} --help)") from error
        return code if isinstance(code, int) else 0

    return exit_code(work)


def exit_code(work: Callable[[], int]) -> int:
    """Do the work of a program.

    Returns:
        What the work returns. An error of ours becomes one line on standard error for each of its problems, and has its
        own exit code; where nobody reads the output any more, as behind ``| head``, it is 0.
    """
    try:
        return work()
    except MmptError as error:
        if not leads():
            time.sleep(RANK_SECONDS)  # rank 0 shows it; torchrun ends all processes with the first that ends
            return error.exit_code
        if os.environ.get("MMPT_TRACEBACK") == "1":
            traceback.print_exception(error)
        for text in error.problems if isinstance(error, ConfigError) else (str(error),):
            show(new_console(sys.stderr), f"error: {error_line(text)}")
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or closing stdout fails once more
        return 0


def leads() -> bool:
    """Whether this is the process that prints."""
    return os.environ.get("RANK", "0") == "0"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells in columns."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
