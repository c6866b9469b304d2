"""How programs end: an error of ours is one safe line, and nobody who reads is no error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.cli.app import main as app_main
from mmpt.cli.program import exit_code
from mmpt.errors import RunError
from mmpt.utils.screen import program

PRINTS = """
import sys
from mmpt.cli.program import exit_code
def work():
    for _ in range(10_000):
        print("x" * 100)
    return 1
sys.exit(exit_code(work))
"""


def test_an_error_is_one_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)

    def work() -> int:
        raise RunError(f"no such run\n\x1b[2J{'k' * 40}")

    assert exit_code(work) == RunError.exit_code
    told = capsys.readouterr().err
    assert told.startswith("error: no such run") and told.count("\n") == 1
    assert "\x1b" not in told and "kkkk" not in told


def test_whoever_reads_may_leave() -> None:
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_mmpt_alone_prints_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert app_main([]) == 0
    said = capsys.readouterr().out
    for name in ("train", "predict", "report", "cache", "hub", "convert", "methods", "models", "tasks", "dashboard"):
        (line,) = re.findall(rf"^  {name} .*$", said, re.M)
        assert not line.endswith("..."), line


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["trian"], "No such command 'trian'"),
        (["predict"], "Missing argument 'RUN_DIR' (see mmpt predict --help)"),
        (["cache", "list", "--dri", "x"], "--dri"),
        (["methods", "check", "prefixx"], "prefix"),
        (["tasks", "--config-dir", "nowhere"], "no such directory"),
    ],
)
def test_a_wrong_call_is_one_line(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app_main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and part in said


@pytest.mark.parametrize("group", ["cache", "hub", "convert", "models"])
def test_a_group_without_a_command_explains_itself(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app_main([group]) == 2
    said = capsys.readouterr()
    assert said.err == "" and f"Usage: mmpt {group}" in said.out and "Commands:" in said.out


def test_help_asks_no_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(f"socket.socket.{name}", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    for words in ([], ["cache"], ["--help"], ["train", "--help"], ["methods"], ["tasks"]):
        assert app_main(words) == (2 if words == ["cache"] else 0)


@pytest.mark.parametrize(
    ("called", "wanted"),
    [
        ("/bin/mmpt", "mmpt train, mmpt report"),
        ("/a/mmpt/__main__.py", "python -m mmpt train, python -m mmpt report"),
        ("/a/train.py", "python /a/train.py, python -m mmpt report"),
    ],
)
def test_printed_commands_are_called_as_the_program_was(
    called: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert ", ".join(" ".join(program(name)) for name in ("train", "report")) == wanted


def test_train_gets_its_words_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    assert app_main(["train", "task=cb", "--cfg", "job", "-p", "task.name"]) == 0
    assert capsys.readouterr().out == "cb\n"


def test_tasks_and_methods_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Own tasks too; a file that holds no task is a line, not a traceback."""
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("metric: rouge\nfiles: {train: a.csv}\n")
    (tmp_path / "task" / "odd.yaml").write_text("5")
    assert app_main(["tasks", "--config-dir", str(tmp_path)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "accuracy  " in rows["rte"] and "entailment, not_entailment" in rows["rte"] and "bundled, hub" in rows["rte"]
    assert "free text" in rows["mine"] and "local (a.csv)" in rows["mine"] and "no mapping" in rows["odd"]
    assert app_main(["methods"]) == 0
    assert re.search(r"^multimask +prefix, prompts, masks, router, gates$", capsys.readouterr().out, re.M)


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ["PASSIVE", "2000"]),
        ({"GOMP_SPINCOUNT": "7"}, ["PASSIVE", "7"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None]),
    ],
)
def test_threads_spin_shortly_unless_the_environment_says_how(given: dict[str, str], wanted: list[str | None]) -> None:
    script = f"import os, sys, mmpt; print([os.environ.get(name) for name in {WAITING}], 'torch' in sys.modules)"
    others = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", script], env=others | given, capture_output=True, text=True)
    assert done.stdout.strip() == f"{wanted} False", done.stderr
