"""Lines and tables on a screen. A terminal is given what fits its width; a file or a pipe gets each text as it is."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mmpt.utils.untrusted import printable

SHORT = 20  # columns of a table that are not broken


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
    """Print lines and tables of Markdown; on a terminal the tables are drawn, with all that their cells say."""
    if not console.is_terminal:
        _print(console, text.rstrip("\n"))
        return
    for is_table, lines in itertools.groupby(text.splitlines(), lambda line: line.startswith("|")):
        if not is_table:
            for line in lines:
                show(console, line)
            continue
        head, _, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
        columns = [[*name.split(), "", *map(_plain, cells)] for name, *cells in zip(head, *rows, strict=True)]
        widths = [max(map(cell_len, column)) for column in columns]
        if sum(min(width, SHORT) + 2 for width in widths) <= console.width:
            console.print(_table(head, widths, rows))
            continue
        for row in rows:  # too many columns
            cells = zip(head, row, strict=True)
            text = "  ".join(f"{name} {cell}" for name, cell in cells if cell not in ("", "–"))
            show(console, _plain(text))


def _plain(text: str) -> str:
    return re.sub(r"\*\*|</?ins>|\\(?=[|*])", "", text)


def _table(head: list[str], widths: list[int], rows: list[list[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in zip(head, widths, strict=True):  # a name is broken at its spaces
        table.add_column("\n".join(textwrap.wrap(name, width)), overflow="fold", no_wrap=width <= SHORT)
    for row in rows:
        cells = [re.sub(r"\*\*(.+?)\*\*", r"[bold]\1[/]", escape(re.sub(r"\\(?=[|*])", "", cell))) for cell in row]
        cells = [re.sub(r"<ins>(.+?)</ins>", r"[underline]\1[/]", cell) for cell in cells]
        table.add_row(*map(Text.from_markup, cells))
    return table


def program(name: str) -> list[str]:
    """The words with which the user calls one of our programs, such as ``train`` or ``report``."""
    called = Path(sys.argv[0])
    if called.name == "mmpt":
        return ["mmpt", name]
    if name == "train" and called.parts[-2:] != ("mmpt", "__main__.py"):
        return ["python", sys.argv[0] if called.name == "train.py" else "train.py"]
    return ["python", "-m", "mmpt", name]


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
