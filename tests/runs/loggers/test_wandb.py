from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.cli import main
from mmpt.config.schema import LoggerConfig
from mmpt.errors import ConfigError
from mmpt.runs.loggers import RunInfo, make_logger
from mmpt.runs.loggers import wandb as wandb_logger
from tests.runs.loggers.example import end, start, steps
from tests.runs.wandb_offline import history, records, summary

KEY = "a" * 40


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """W&B as on a machine that never saw it: no key, no netrc, no mode, and nothing from an earlier test."""
    import wandb

    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield
    wandb.teardown()


def run_all(directory: Path, config: LoggerConfig, said: list[str]) -> None:
    """What a training run does with a logger: seven lines of history."""
    loggers = start(directory, config, said)
    steps(loggers, 1, 2)
    end(loggers, directory)


def test_without_a_key_it_logs_offline_and_everything_is_in_the_file(tmp_path: Path, capfd: Any) -> None:
    said: list[str] = []
    run_all(tmp_path / "my run", LoggerConfig(wandb=True, tags=["mine"]), said)
    assert len(said) == 1 and "no API key" in said[0] and f"wandb sync '{tmp_path / 'my run' / 'wandb'}'/" in said[0]
    assert capfd.readouterr() == ("", "")
    (run,) = (record.run for record in records(tmp_path / "my run") if record.WhichOneof("record_type") == "run")
    assert (run.display_name, run.run_group, run.project) == ("rte-1", "rte", "mmpt")
    assert sorted(run.tags) == ["mine", "smoke"]
    stored = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert stored["task"] == {"name": "rte"} and stored["seed"] == 0
    rows = history(tmp_path / "my run")
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [(1, 1.0), (2, 0.5)]
    assert rows[2]["masks/decoder._type"] == "image-file" and rows[6]["predictions._type"] == "table-file"
    assert summary(tmp_path / "my run")["test/score"] == 0.5
    artifacts = [r.artifact.name for r in records(tmp_path / "my run") if r.WhichOneof("record_type") == "artifact"]
    assert "rte-adapter" in artifacts
    assert [record.exit.exit_code for record in records(tmp_path / "my run") if record.HasField("exit")] == [0]


def test_failed_run_ends_with_an_exit_code(tmp_path: Path) -> None:
    logger = make_logger(LoggerConfig(wandb=True, mode="offline"), print)
    logger.start(RunInfo("x", None, {}, tmp_path))
    logger.finish("failed")
    logger.log(1, {"loss": 1.0})  # too late, and harmless
    assert [record.exit.exit_code for record in records(tmp_path) if record.HasField("exit")] == [1]


def test_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    for step in (1, 2):
        logger = make_logger(LoggerConfig(wandb=True, mode="offline"), print)
        logger.start(RunInfo("x", None, {}, tmp_path))
        logger.log(step, {"loss": 1.0})
        logger.finish("interrupted" if step == 1 else "done")
        time.sleep(1.1)  # W&B names folders by the second
    names = {path.name.rsplit("-", 1)[1] for path in tmp_path.glob("wandb/offline-run-*")}
    assert len(names) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def seen(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[dict[str, Any]]:
    """The named arguments of each call of a function, which still runs."""
    real, calls = getattr(owner, name), []

    def call(*args: Any, **named: Any) -> Any:
        calls.append(named)
        return real(*args, **named)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_unreachable_server_costs_one_probe_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    server = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    said: list[str] = []
    probes = seen(monkeypatch, wandb_logger.socket, "create_connection")
    run_all(tmp_path, LoggerConfig(wandb=True, mode=mode), said)
    assert [more["timeout"] for more in probes] == [wandb_logger.PROBE_SECONDS]
    assert len(said) == 1 and f"{server} cannot be reached; logging offline" in said[0]
    assert len(history(tmp_path)) == 7


class Refusing(BaseHTTPRequestHandler):
    """W&B's answer to a key that it does not know."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"errors": [{"message": "invalid API key"}]}'
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a server that rejects every key."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("key", [KEY, "short"])
def test_wrong_key_is_one_line_and_the_run_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusing: str, key: str, capfd: Any
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_BASE_URL", refusing)
    said: list[str] = []
    run_all(tmp_path, LoggerConfig(wandb=True), said)
    assert len(said) == 1 and f"W&B: {refusing} rejects the API key" in said[0] and "logging offline" in said[0]
    assert len(history(tmp_path)) == 7
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("server", ["refuses", "is closed"])
def test_training_goes_on_without_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusing: str, server: str, capfd: Any
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", refusing if server == "refuses" else f"http://127.0.0.1:{free_port()}")
    words = ["data.limit_train=32", "data.limit_validation=16", "data.limit_test=16", "trainer.max_steps=2"]
    assert main([f"run.dir='{tmp_path / 'r'}'", *words, "trainer.logging_steps=1", "logger=[wandb,csv]"]) == 0
    said = "".join(capfd.readouterr())
    (line,) = [line for line in said.splitlines() if "W&B" in line]
    assert "logging offline" in line and ("rejects the API key" if server == "refuses" else "cannot be reached") in line
    assert (tmp_path / "r" / "result.json").exists()
    assert [row["step"] for row in history(tmp_path / "r") if "train/loss" in row] == [1, 2]


def test_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setattr(wandb_logger, "INIT_SECONDS", 1)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        said: list[str] = []
        begun = seen(monkeypatch, wandb, "init")
        run_all(tmp_path, LoggerConfig(wandb=True), said)
    assert [(one["mode"], one["settings"].init_timeout) for one in begun] == [("online", 1), ("offline", 1)]
    assert len(said) == 1 and "cannot log online" in said[0]
    assert len(history(tmp_path)) == 7


def test_online_without_a_key_is_an_error_before_training(tmp_path: Path) -> None:
    logger = make_logger(LoggerConfig(wandb=True, mode="online"), print)
    with pytest.raises(ConfigError, match=r"logger\.mode=online needs an API key .*WANDB_API_KEY.*logger\.mode=auto"):
        logger.start(RunInfo("x", None, {}, tmp_path))


def test_key_in_netrc_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1:{port} login user password {KEY}\n", encoding="utf-8")
    said: list[str] = []
    logger = make_logger(LoggerConfig(wandb=True), said.append)
    logger.start(RunInfo("x", None, {}, tmp_path))
    logger.finish("done")
    assert "cannot be reached" in said[0]  # so there was a key


OWN_SETTINGS = {  # of W&B, and what they mean to logger.mode=auto
    "WANDB_MODE=offline": "offline",
    "WANDB_MODE=dryrun": "offline",
    "settings file: offline": "offline",
    "WANDB_MODE=disabled": "disabled",
    "WANDB_DISABLED=true": "disabled",
    "settings file: disabled": "disabled",
    "WANDB_MODE=online": "online",
    "WANDB_MODE=run": "online",
    "WANDB_DISABLED=false": "online",
    "WANDB_MODE=shared": "shared",
}


def own_setting(monkeypatch: pytest.MonkeyPatch, directory: Path, text: str) -> None:
    """Make one of :data:`OWN_SETTINGS`, beside a key; nothing that a test contacts exists."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.chdir(directory)
    name, _, value = text.replace("settings file: ", "file=").partition("=")
    if name == "file":
        (directory / "wandb").mkdir()
        (directory / "wandb" / "settings").write_text(f"[default]\nmode = {value}\n", encoding="utf-8")
    else:
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("text", "mode"), OWN_SETTINGS.items())
def test_settings_of_wandb_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, mode: str) -> None:
    own_setting(monkeypatch, tmp_path, text)
    probed: list[str] = []
    monkeypatch.setattr(wandb_logger, "reachable", lambda server: probed.append(server) or True)
    assert wandb_logger.choose_mode("auto")[0] == mode
    assert len(probed) == (mode in ("online", "shared"))


@pytest.mark.parametrize("asked", ["online", "offline"])
@pytest.mark.parametrize(("text", "own"), OWN_SETTINGS.items())
def test_an_explicit_mode_overrules_settings_of_wandb_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, own: str, asked: str
) -> None:
    own_setting(monkeypatch, tmp_path, text)
    monkeypatch.setattr(wandb_logger, "reachable", lambda server: True)
    mode, said = wandb_logger.choose_mode(asked)
    named = text.replace("settings file: ", "W&B's settings file (mode=")
    expected = f"logger.mode={asked} overrules {named}"
    is_silent = own == asked or text == "WANDB_DISABLED=false"
    assert mode == asked and (said is None if is_silent else (said or "").startswith(expected))


@pytest.mark.parametrize("text", [text for text, mode in OWN_SETTINGS.items() if mode == "offline"])
def test_own_settings_can_ask_for_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    own_setting(monkeypatch, tmp_path, text)
    said: list[str] = []
    run_all(tmp_path / "run", LoggerConfig(wandb=True), said)
    assert said == [] and len(history(tmp_path / "run")) == 7


@pytest.mark.parametrize("text", [text for text, mode in OWN_SETTINGS.items() if mode == "disabled"])
@pytest.mark.parametrize("mode", ["auto", "offline"])
def test_own_settings_can_switch_wandb_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, mode: Any
) -> None:
    own_setting(monkeypatch, tmp_path, text)
    said: list[str] = []
    run_all(tmp_path / "run", LoggerConfig(wandb=True, mode=mode), said)
    source = text.replace("settings file: ", "W&B's settings file (mode=")
    assert len(said) == 1 and source in said[0]
    assert (tmp_path / "run" / "wandb").exists() == (mode == "offline")


def test_errors_of_wandb_are_reported_once_and_the_run_continues(tmp_path: Path) -> None:
    said: list[str] = []
    logger = make_logger(LoggerConfig(wandb=True, mode="offline"), said.append)
    logger.start(RunInfo("x", None, {}, tmp_path))
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
    logger = make_logger(LoggerConfig(wandb=True, mode="offline"), said.append)
    logger.start(RunInfo("x", None, {}, tmp_path / "file"))
    logger.log(1, {"loss": 0.5})
    logger.finish("done")
    assert len(said) == 1 and "starting failed" in said[0]
