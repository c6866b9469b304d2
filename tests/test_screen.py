"""What a terminal of 80 columns shows, and what a pipe gets in its place."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from mmpt.utils.screen import new_console, show, show_command, show_markdown

ROOT = Path(__file__).parents[1]
SMOKE = ["experiment=smoke", "trainer.max_steps=6", "logger=none"]


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_lines_are_broken_at_spaces_on_a_terminal_alone() -> None:
    text = "  figures   of a run  " + "wörter 語 " * 20 + "/a/long/path" * 10
    console = terminal(40)
    show(console, text)
    lines = printed(console).splitlines()
    assert " ".join(printed(console).split()) == " ".join(text.split())
    assert all(cell_len(line) <= 40 for line in lines[:-1]) and lines[-1].strip() == "/a/long/path" * 10
    out = io.StringIO()
    show(new_console(out), f"{text}\x1b[2J")
    assert out.getvalue() == f"{text} [2J\n"


def test_a_broken_command_is_the_same_command() -> None:
    words = ["train.py", "run.root=a b", "task.template='{x}'", *(f"some.key{n}=value" for n in range(9)), "x\\y"]
    console = terminal(40)
    show_command(console, words)
    assert len(printed(console).splitlines()) > 3
    echo = shlex.join([sys.executable, "-c", "import sys; print('\\n'.join(sys.argv[1:]))"])
    done = subprocess.run(["sh", "-c", f"{echo} {printed(console)}"], capture_output=True, text=True)
    assert done.stdout.splitlines() == words


@pytest.mark.parametrize("width", [40, 24])  # at the second, a table has no room
def test_tables_are_drawn_on_a_terminal_alone(width: int) -> None:
    setting = "method=multimask lr.prefix=0.1 a\\|b [x] " + "w" * 18
    table = f"Scores:\n\n| setting | mean, ± sd |\n|---|---|\n| {setting} | **0.500** ± 0.10 |\n"
    console, out = terminal(width), io.StringIO()
    show_markdown(console, table)
    lines = printed(console).splitlines()
    assert max(map(cell_len, lines)) <= width and "**" not in printed(console)
    assert width == 24 or any("0.500 ± 0.10" in line for line in lines)  # in one piece
    shown = "".join(printed(console).replace("0.500 ± 0.10", "").split())
    assert "0.500" in shown or width == 40
    assert setting.replace("\\", "").replace(" ", "") in shown
    show_markdown(new_console(out), table)
    assert out.getvalue() == table


def on_a_terminal(folder: Path, *words: str) -> tuple[int, str]:
    """Run train.py on a pseudo-terminal of 80 columns; returns the exit code and what it wrote."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(folder)
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        os.execve(sys.executable, [sys.executable, str(ROOT / "train.py"), *words], environment | {"TERM": "xterm"})
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    written = b""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # the other end is closed
            break
        written += part
        if not part:
            break
    os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), written.decode()


def lines_of(written: str) -> list[str]:
    """Every line that was ever on the screen; none is too wide, unless it is one word."""
    pieces = re.split(r"\r|\n|\x1b\[2K|\x1b\[\dA", written)
    lines = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", piece) for piece in pieces]
    assert all(len(line) <= 80 or " " not in line.strip(" \\") for line in lines), lines
    return lines


@pytest.mark.slow
def test_a_run_and_a_sweep_on_a_terminal(tmp_path: Path) -> None:
    code, written = on_a_terminal(tmp_path, *SMOKE, "task=cb", "trainer.eval_strategy=steps", "trainer.eval_steps=2")
    seen = lines_of(written)
    assert code == 0
    assert any(re.match(r"training ━+ +\d/6 loss \d\.\d+ +validation \d\.\d+ ", line) for line in seen), seen
    after = [line for line in seen[seen.index("cb with multimask on bundled, seed 1") :] if line]
    assert not any("training ━" in line for line in after)  # the bar is gone
    command = written.split("next:\r\n")[1].replace("\\\r\n", "").splitlines()[0]
    own = shlex.split(command)[2:]
    assert own == [*SMOKE, "task=cb", "trainer.eval_strategy=steps", "trainer.eval_steps=2", "seed=2"]

    code, written = on_a_terminal(tmp_path, *SMOKE, "-m", "task=cb", "method=prefix,multimask")
    seen = lines_of(written)
    assert code == 0
    assert seen[0].startswith("mmpt: 2 trials, each with ")
    assert any(re.match(r"[012] of 2 trials ━+ \d left", line) for line in seen)
    assert any(line.startswith("  trial 2/2  method=multimask") for line in seen)  # while it runs
    assert any(re.match(r"trial 2/2  method=multimask  validation 0\.\d+  test 0\.\d+  \d", line) for line in seen)
    assert not any(line.startswith("|") for line in seen)
    assert "  python -m mmpt report runs" in seen
