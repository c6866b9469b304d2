"""What cannot be scored is reported before training, whatever split it is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmpt.cli import main
from mmpt.config.schema import DataConfig
from tests.tiny_encoders import checkpoint

Own = Callable[..., DataConfig]
TASK = "name: own\ntemplate: '{x}'\nlabels: {one: [1], another_label_of_many_tokens: [2]}\nfiles: {files}\n"
FILES = "{train: train.csv, validation: val.csv, test: test.csv}"
SHORT = ["task=own", "data=local", "logger=none", "trainer.max_steps=2", "trainer.eval_strategy=no", "cache=off"]


def words(own: Own, tmp_path: Path, task: str = TASK, test: str = "a,1\n") -> list[str]:
    """A command on own data whose test file has these rows."""
    train = "x,label\n" + "".join(f"a {n},{1 + n % 2}\n" for n in range(8))
    own({"task/own.yaml": task.replace("{files}", FILES), "train.csv": train, "val.csv": train})
    (tmp_path / "test.csv").write_text(f"x,label\n{test}", encoding="utf-8")
    return [*SHORT, "--config-dir", str(tmp_path), f"data.dir={tmp_path}", f"run.dir={tmp_path / 'run'}"]


def test_a_test_text_beyond_the_positions(own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = checkpoint(tmp_path / "bert", ["a", "one", "another_label_of_many_tokens"])
    command = words(own, tmp_path, test=f"{'a ' * 90},1\n")
    assert main([*command, "model=local", f"model.path={place}"]) == 2
    assert "64 positions of this bert model; lower data.max_length" in capsys.readouterr().err
    assert not (tmp_path / "run/adapter").exists() and not (tmp_path / "run/metrics.jsonl").exists()


def test_a_label_beyond_max_new_tokens(own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*words(own, tmp_path), "evaluation.decoding=[generation]", "evaluation.max_new_tokens=2"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert 'max_new_tokens=2 is too small for the label "another_label_of_many_tokens", which has' in error


def test_free_targets_beyond_max_new_tokens_are_a_warning(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TASK.replace("labels: {one: [1], another_label_of_many_tokens: [2]}\n", "metric: token_f1\n")
    command = words(own, tmp_path, task, "a,many words in a long answer\n")
    assert main([*command, "evaluation.decoding=[generation]", "evaluation.max_new_tokens=3"]) == 0
    assert "1 of 17 targets are longer than evaluation.max_new_tokens=3" in capsys.readouterr().out


METRIC = """from mmpt.data.metrics import Metric

def one(prediction, target):
    return {}

METRIC = Metric.mean("mine", one)
"""
FREE = TASK.replace("labels: {one: [1], another_label_of_many_tokens: [2]}\n", "")


@pytest.mark.parametrize(
    ("task", "code", "error"),
    [
        (TASK, "equals(prediction, target)", "NameError: name 'equals' is not defined (mine.py, line 4)"),
        (TASK, "1.0 if prediction == target else wrong", "NameError: name 'wrong' is not defined (mine.py, line 4)"),
        (FREE, "abs(float(prediction) - float(target))", "ValueError: could not convert string to float: '' (mine.py"),
        (TASK, "float(prediction == target)", None),
    ],
)
def test_a_metric_of_ones_own_that_fails(
    task: str, code: str, error: str | None, own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words(own, tmp_path, f"{task}metric: mine\n")
    (tmp_path / "metric").mkdir()
    (tmp_path / "metric/mine.py").write_text(METRIC.format(code), encoding="utf-8")
    command += ["evaluation.decoding=[generation]", "evaluation.max_new_tokens=3"] if task == FREE else []
    assert main(command) == (0 if error is None else 2)
    if error is not None:
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "task.metric=mine" in line]
        assert error in line and str(tmp_path / "metric/mine.py") in line
        assert not (tmp_path / "run").exists()  # so that the same command works once the file is correct
