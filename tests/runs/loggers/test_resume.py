"""A run that is killed and goes on: each logger ends with every step once."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXTRAS = [name for name in ("tensorboard", "trackio") if find_spec(name) is not None]
READ_TRACKIO = """
import json
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("mmpt")
print(json.dumps([row["step"] for row in SQLiteStorage.get_logs("mmpt", name) if "train/loss" in row]))
"""


@pytest.mark.slow
def test_after_a_kill_every_logger_has_every_step_once(tmp_path: Path) -> None:
    directory = tmp_path / "r"
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "db")}
    chosen = f"logger=[{','.join(['csv', *EXTRAS])}]"
    words = ["data.limit_train=96", "data.limit_validation=24", "data.limit_test=40", "evaluation.bootstrap=0", chosen]
    words += [f"run.dir='{directory}'", "trainer.num_train_epochs=8", "trainer.logging_steps=1"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    while not (directory / "checkpoints/checkpoint-6/state.json").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (directory / "result.json").exists(), "the run was over before it could be killed"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = [line["step"] for line in lines if "train/loss" in line]
    assert expected == list(range(1, 25))
    with (directory / "csv" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == expected
    if "tensorboard" in EXTRAS:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(directory / "tensorboard")).Reload()
        assert [point.step for point in found.Scalars("train/loss")] == expected
    if "trackio" in EXTRAS:
        done = subprocess.run(
            [sys.executable, "-c", READ_TRACKIO], check=True, env=environment, capture_output=True, text=True
        )
        assert json.loads(done.stdout) == expected
