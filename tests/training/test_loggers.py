from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.config.schema import LoggerConfig
from mmpt.errors import RunError
from mmpt.training import loggers
from mmpt.training.loggers import NoLogger, draw_masks, make_logger
from tests.training.wandb_offline import history, records

KEY = "a" * 40


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """W&B as on a machine that never saw it: no key, no netrc, no mode."""
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def run_all(directory: Path, config: LoggerConfig, said: list[str]) -> None:
    """What a training run does with a logger."""
    directory.mkdir(exist_ok=True)
    logger = make_logger(config, said.append)
    resolved = {"task": {"name": "rte"}, "seed": 0}
    logger.start(name="rte-1", group="rte", config=resolved, directory=directory, tags=["smoke"])
    for step in range(3):
        logger.log(step, {"train/loss": 1.0 / (step + 1)})
    logger.heatmap("masks", np.full((2, 3, 4), 0.5), 2)
    logger.table("confusion", ["label", "count"], [["entailment", 3]])
    (directory / "adapter").mkdir(exist_ok=True)
    (directory / "adapter" / "adapter.json").write_text("{}", encoding="utf-8")
    logger.artifact(directory / "adapter", "rte-adapter", "adapter")
    logger.finish("done")


def test_without_a_key_it_logs_offline_and_everything_is_in_the_file(tmp_path: Path, capfd: Any) -> None:
    said: list[str] = []
    run_all(tmp_path / "my run", LoggerConfig(name="wandb", tags=["mine"]), said)
    assert len(said) == 1 and "no API key" in said[0] and f"wandb sync '{tmp_path / 'my run' / 'wandb'}'/" in said[0]
    assert capfd.readouterr() == ("", "")
    (run,) = (record.run for record in records(tmp_path / "my run") if record.WhichOneof("record_type") == "run")
    assert (run.display_name, run.run_group, run.project) == ("rte-1", "rte", "mmpt")
    assert sorted(run.tags) == ["mine", "smoke"]
    stored = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert stored["task"] == {"name": "rte"} and stored["seed"] == 0
    rows = history(tmp_path / "my run")
    assert [(row["step"], row["train/loss"]) for row in rows[:3]] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert rows[3]["masks._type"] == "image-file" and rows[4]["confusion._type"] == "table-file"
    artifacts = [r.artifact.name for r in records(tmp_path / "my run") if r.WhichOneof("record_type") == "artifact"]
    assert "rte-adapter" in artifacts
    assert [record.exit.exit_code for record in records(tmp_path / "my run") if record.HasField("exit")] == [0]


def test_failed_run_ends_with_an_exit_code(tmp_path: Path) -> None:
    logger = make_logger(LoggerConfig(name="wandb", mode="offline"), print)
    logger.start(name="x", group=None, config={}, directory=tmp_path)
    logger.finish("failed")
    logger.log(1, {"loss": 1.0})  # too late, and harmless
    assert [record.exit.exit_code for record in records(tmp_path) if record.HasField("exit")] == [1]


def test_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    for step in (1, 2):
        logger = make_logger(LoggerConfig(name="wandb", mode="offline"), print)
        logger.start(name="x", group=None, config={}, directory=tmp_path)
        logger.log(step, {"loss": 1.0})
        logger.finish("interrupted" if step == 1 else "done")
        time.sleep(1.1)  # W&B names folders by the second
    names = {path.name.rsplit("-", 1)[1] for path in tmp_path.glob("wandb/offline-run-*")}
    assert len(names) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_unreachable_server_costs_seconds_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    server = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    said: list[str] = []
    began = time.monotonic()
    run_all(tmp_path, LoggerConfig(name="wandb", mode=mode), said)
    assert time.monotonic() - began < 20
    assert len(said) == 1 and f"{server} can't be reached; logging offline" in said[0]
    assert len(history(tmp_path)) == 5


def test_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "INIT_SECONDS", 3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        said: list[str] = []
        began = time.monotonic()
        run_all(tmp_path, LoggerConfig(name="wandb"), said)
        assert time.monotonic() - began < 30
    assert len(said) == 1 and "can't log online" in said[0]
    assert len(history(tmp_path)) == 5


def test_online_without_a_key_is_an_error_before_training(tmp_path: Path) -> None:
    logger = make_logger(LoggerConfig(name="wandb", mode="online"), print)
    with pytest.raises(RunError, match=r"logger\.mode=online needs an API key .*WANDB_API_KEY.*logger\.mode=auto"):
        logger.start(name="x", group=None, config={}, directory=tmp_path)


def test_key_in_netrc_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1:{port} login user password {KEY}\n", encoding="utf-8")
    said: list[str] = []
    logger = make_logger(LoggerConfig(name="wandb"), said.append)
    logger.start(name="x", group=None, config={}, directory=tmp_path)
    logger.finish("done")
    assert "can't be reached" in said[0]  # so the key was found


def test_environment_can_switch_wandb_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    said: list[str] = []
    run_all(tmp_path, LoggerConfig(name="wandb"), said)
    assert len(said) == 1 and "WANDB_MODE=disabled" in said[0]
    assert not (tmp_path / "wandb").exists()


def test_environment_can_ask_for_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    said: list[str] = []
    run_all(tmp_path, LoggerConfig(name="wandb"), said)
    assert said == [] and len(history(tmp_path)) == 5


def test_errors_of_wandb_are_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    logger = make_logger(LoggerConfig(name="wandb", mode="offline"), said.append)
    logger.start(name="x", group=None, config={}, directory=tmp_path)
    for step in range(3):
        logger.heatmap("masks", np.zeros(3), step)
    logger.artifact(tmp_path / "missing", "adapter", "adapter")
    logger.log(1, {"loss": 0.5})
    logger.finish("done")
    assert len(said) == 2 and "drawing failed" in said[0] and "artifact failed" in said[1]
    assert history(tmp_path)[-1]["loss"] == 0.5


def test_unwritable_directory_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    logger = make_logger(LoggerConfig(name="wandb", mode="offline"), said.append)
    logger.start(name="x", group=None, config={}, directory=tmp_path / "file")
    logger.log(1, {"loss": 0.5})
    logger.finish("done")
    assert len(said) == 1 and "starting failed" in said[0]


def test_none_writes_nothing(tmp_path: Path) -> None:
    assert isinstance(make_logger(LoggerConfig(name="none")), NoLogger)
    run_all(tmp_path, LoggerConfig(name="none"), [])
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}


def test_making_a_logger_imports_no_wandb() -> None:
    code = (
        "import sys\nfrom mmpt.config.schema import LoggerConfig\nfrom mmpt.training.loggers import make_logger\n"
        "make_logger(LoggerConfig(name='wandb'))\nassert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], env={**os.environ})


def test_masks_are_drawn_by_value() -> None:
    masks = np.zeros((3, 10, 6))
    closed = draw_masks(masks)
    assert closed.dtype == np.uint8 and closed.shape[2] == 4
    masks[1] = 1.0
    assert (draw_masks(masks) != closed).any()
