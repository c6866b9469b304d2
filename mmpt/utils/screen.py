"""Lines and tables on a screen. A terminal is given what fits its width; a file or a pipe gets each text as it is."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.markdown import Markdown

from mmpt.utils.untrusted import printable


def new_console(file: TextIO | None = None) -> Console:
    """Print to a text stream; to standard output where None."""
    return Console(file=sys.stdout if file is None else file, highlight=False)


def show(console: Console, text: str, style: str | None = None) -> None:
    """Print one line; on a terminal, broken at spaces so that it fits."""
    words = printable(text).split(" ")
    _print(console, _folded(words, console.width) if console.is_terminal else " ".join(words), style)


def show_command(console: Console, words: Sequence[str]) -> None:
    """Print a command that works when it is pasted, also where it is broken into several lines."""
    quoted = ["", "", *map(shlex.quote, words)]
    _print(console, _folded(quoted, console.width, " \\") if console.is_terminal else " ".join(quoted))


def show_markdown(console: Console, text: str) -> None:
    """Print Markdown; on a terminal its tables are drawn."""
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        _print(console, text.rstrip("\n"))


def program(name: str) -> list[str]:
    """The words with which the user calls one of our programs, such as ``train`` or ``report``."""
    called = Path(sys.argv[0])
    if called.name == "mmpt":
        return ["mmpt", name]
    return (
        ["python", sys.argv[0] if called.name == "train.py" else "train.py"]
        if name == "train"
        else ["python", "-m", f"mmpt.{name}"]
    )


def _print(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, emoji=False, soft_wrap=True)


def _folded(words: Sequence[str], width: int, end: str = "") -> str:
    lines = [words[0]]
    for word in words[1:]:
        if cell_len(lines[-1]) + 1 + cell_len(word) + len(end) <= width:
            lines[-1] += f" {word}"
        elif word:
            lines.append(f"    {word}")
    return f"{end}\n".join(map(str.rstrip, lines))
