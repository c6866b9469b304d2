"""Two runs side by side, and the live page on this machine."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.report.watch import state
from tests.commands import report as main
from tests.report.builder import HOSTILE, write

Capture = pytest.CaptureFixture[str]


def answers(run: Path, *rows: tuple[str, bool]) -> Path:
    """Give a run predictions."""
    lines = [
        {"id": str(i), "source": HOSTILE[0], "target": "t", "prediction": word, "correct": right}
        for i, (word, right) in enumerate(rows)
    ]
    (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_two_runs_side_by_side(tmp_path: Path, capsys: Capture) -> None:
    first = answers(write(tmp_path, "prefix", 1, 0.7), ("yes", True), ("no", False), ("a|b", False))
    settings = {"method.lr.prefix": 0.5}
    second = answers(write(tmp_path, "smop", 2, 0.8, settings=settings), ("yes", True), ("yes", True), ("c", False))
    assert main([str(first), str(second), "--diff", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "| setting | A: rte-prefix-1 | B: rte-smop-2 |" in told
    assert "| method.lr.prefix | 0.05 | 0.5 |" in told and "| seed | 1 | 2 |" in told and "max_steps" not in told
    assert "| test score | 0.700 (accuracy) | 0.800 (accuracy) |" in told
    assert "| peak MB | 5 | 5 |" in told and "| steps | 20 | 20 |" in told and "| trainable | 100 | 100 |" in told
    assert "2 of 3 common test examples differ; A is right on 0 of them, B on 1" in told
    assert "| no | yes (right) |" in told and r"| a\|b | c |" in told and "<script" not in told
    assert (tmp_path / "out" / "diff.md").read_text() == told


def test_a_run_is_equal_to_itself_and_needs_no_predictions(tmp_path: Path, capsys: Capture) -> None:
    run = write(tmp_path)
    (run / "predictions.jsonl").unlink()
    assert main([str(run), str(run), "--diff"]) == 0
    told = capsys.readouterr().out
    assert "Equal settings" in told and "No test examples to compare" in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "--diff"], "two run directories; got 1"),
        (["a", ".", "--diff"], "holds 2 runs"),
        (["a", "gone", "--diff"], "does not exist"),
        (["a", "b", "--diff", "--watch"], "--watch and --diff write no report"),
        (["a", "--watch", "--out", "x"], "leave out --formats, --figures, and --out with --watch"),
        (["gone", "--watch"], "does not exist"),
    ],
)
def test_what_cannot_be_compared_or_watched(
    words: list[str], expected: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, name="a")
    write(tmp_path, name="b", seed=2)
    assert main(words) == 2
    told = capsys.readouterr().err
    assert expected in told and told.count("\n") == 1


def test_the_state_changes_when_a_run_ends(tmp_path: Path) -> None:
    write(tmp_path, seed=1)
    before = state([tmp_path])
    assert state([tmp_path]) == before
    (tmp_path / "rte-prefix-1" / "metrics.jsonl").write_text("")  # written all the time
    assert state([tmp_path]) == before
    write(tmp_path, seed=2)
    assert state([tmp_path]) != before


def test_a_live_page_on_this_machine_alone(tmp_path: Path) -> None:
    write(tmp_path, "prefix", 1, 0.5)
    command = [sys.executable, "-m", "mmpt.report", str(tmp_path), "--watch", "--baseline", "smop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split("http://")[1].split("/")[0]
            port = int(address.removeprefix("127.0.0.1:"))

            def get(path: str, host: str = address) -> tuple[int, str]:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("GET", path, headers={"Host": host})
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

            status, page = get("/")
            assert status == 200 and "there are prefix" in page and "connect-src 'self'" in page
            first = get("/state")[1]
            assert f'data-live="{first}"' in page
            write(tmp_path, "smop", 1, 0.75)
            second = get("/state")[1]
            page = get("/")[1]
            assert second != first and f'data-live="{second}"' in page and "75.0" in page
            assert get("/", host="elsewhere.example")[0] == 404  # a name that points here
            assert get("/../../etc/passwd")[0] == 404
            with socket.socket() as other, pytest.raises(OSError):
                other.connect(("127.0.0.2", port))
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0 and process.stderr is not None and not process.stderr.read()
