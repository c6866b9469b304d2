"""Weights & Biases, online or offline, without prompts and without output of its own."""

from __future__ import annotations

import os
import re
import socket
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy.typing as npt

from mmpt.config.schema import LoggerConfig
from mmpt.errors import ConfigError
from mmpt.runs.loggers.base import RunInfo, Say, kept_id
from mmpt.runs.loggers.draw import draw_masks
from mmpt.utils.untrusted import one_line

Mode = Literal["online", "offline"]

PROBE_SECONDS = 3.0  # until an unreachable server counts as such
INIT_SECONDS = 15  # until a server that answers too slowly is given up
FINISH_SECONDS = 60.0  # until an upload that doesn't end is left to `wandb sync`


class WandbLogger:
    """One W&B run; without a key or a network its copy in the run directory can be uploaded later."""

    label = "W&B"

    def __init__(self, config: LoggerConfig, say: Say) -> None:
        """Keep the settings; nothing is imported or contacted before :meth:`start`.

        Args:
            config: Project, entity and mode.
            say: Shows one line to the user.
        """
        self._config = config
        self._say = say
        self._run: Any = None

    def start(self, run: RunInfo) -> None:
        """Begin a run; one that goes on keeps its id. W&B can't take back what an interrupted run logged too far.

        Raises:
            ConfigError: ``logger.mode=online`` without an API key.
        """
        mode, reason = self._choose_mode()
        if reason:
            self._say(f"W&B: {reason}; {_upload_hint(run.directory)}")
        arguments: dict[str, Any] = {
            "project": self._config.project,
            "entity": self._config.entity,
            "name": run.name,
            "group": self._config.group if self._config.group is not None else run.group,
            "tags": list(dict.fromkeys([*self._config.tags, *run.tags])),
            "config": dict(run.config),
            "dir": str(run.directory),
            # an agent of a sweep sets it
            "id": os.environ.get("WANDB_RUN_ID") or kept_id(run.directory / "wandb" / "run_id"),
        }
        self._run = _init(mode, arguments, self._say)
        # An x axis of our own: W&B's drops whatever comes at a step it has passed, as after a resume.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row to the history."""
        self._run.log({**values, "step": step})

    def heatmap(self, key: str, array: npt.NDArray[Any], step: int) -> None:
        """Record masks as one picture, a panel a route."""
        import wandb

        self._run.log({key: wandb.Image(draw_masks(array)), "step": step})

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table."""
        import wandb

        self._run.log({key: wandb.Table(list(columns), [list(row) for row in rows])})

    def summary(self, values: Mapping[str, float]) -> None:
        """Fill in the run's row in the table of runs."""
        self._run.summary.update(dict(values))

    def artifact(self, path: Path, name: str, type: str) -> None:
        """Record a file or folder."""
        import wandb

        artifact = wandb.Artifact(name, type=type)
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self, status: str) -> None:
        """End the run, with an exit code unless it is done."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == "done" else 1)

    def _choose_mode(self) -> tuple[Mode, str | None]:
        """Settle on online or offline, with the reason where offline is not what was asked for."""
        asked: str = self._config.mode
        if asked == "auto":
            asked = os.environ.get("WANDB_MODE", "auto")
        if asked == "offline":
            return "offline", None
        server = server_url()
        if not has_key():
            if self._config.mode == "online":
                raise ConfigError(
                    f"logger.mode=online needs an API key for {server}: set WANDB_API_KEY or run `wandb login`, "
                    "or use logger.mode=auto (offline without a key) or logger=none"
                )
            return "offline", "no API key"
        if not reachable(server):
            return "offline", f"{server} can't be reached"
        return "online", None


def _init(mode: Mode, arguments: dict[str, Any], say: Say) -> Any:
    """Begin a W&B run; one that can't begin online begins offline."""
    _settings()  # wandb.init logs in, and talks about it, before it looks at the settings it is given
    import wandb

    def begin(mode: Mode) -> Any:
        resume: Literal["allow"] | None = "allow" if mode == "online" else None
        return wandb.init(mode=mode, resume=resume, settings=_quiet(), reinit="create_new", **arguments)

    if mode == "online":
        try:
            return begin("online")
        except Exception as error:
            line = one_line(error)[:200]
            refused = re.search(r"\b401\b|API key", line)
            what = f"{server_url()} refuses the API key" if refused else "can't log online"
            say(f"W&B: {what} ({line}); {_upload_hint(Path(arguments['dir']))}")
            arguments = {**arguments, "id": f"{arguments['id']}-offline"}  # W&B still holds the other id as in use
    return begin("offline")


def _upload_hint(directory: Path) -> str:
    return f"logging offline, upload later with: wandb sync '{directory / 'wandb'}'/offline-run-*"


def server_url() -> str:
    """The W&B server in use: W&B's own, or what WANDB_BASE_URL or ``wandb login --host`` says."""
    return str(_settings().base_url)


def has_key() -> bool:
    """Whether W&B would find a key for its server without asking: in the environment or in the netrc file."""
    from wandb.sdk.lib.wbauth import read_netrc_auth

    settings = _settings()
    return bool(settings.api_key or settings.identity_token_file or read_netrc_auth(host=settings.base_url))


def _settings() -> Any:
    """W&B's settings in this process, which it reads once from environment and files; ours keep it quiet."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its reports end up on the console where they fail
    import wandb

    return wandb.setup(settings=_quiet()).settings


def _quiet() -> Any:
    import wandb

    return wandb.Settings(
        silent=True, console="off", disable_git=True, init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS
    )


def reachable(server: str) -> bool:
    """Whether the server takes connections. Behind a proxy only W&B itself can tell."""
    if urllib.request.getproxies():
        return True
    address = urlsplit(server)
    port = address.port if address.port is not None else (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False
