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

from mmpt.config.schema import LoggerConfig
from mmpt.errors import ConfigError
from mmpt.runs.loggers.base import Logger, Mask, RunInfo, Say, SwitchedOff, draw_masks
from mmpt.utils.untrusted import one_line

Mode = Literal["online", "offline", "shared", "disabled"]

SPELLINGS: dict[str, Mode] = {"dryrun": "offline", "run": "online"}  # older names that W&B still accepts

PROBE_SECONDS = 3.0  # until an unreachable server counts as such
INIT_SECONDS = 15  # until a server that answers too slowly is given up
FINISH_SECONDS = 60.0  # until an upload that does not end is left to `wandb sync`


class WandbLogger(Logger):
    """One W&B run; without a key or a network its copy in the run directory can be uploaded later."""

    label = "W&B"

    def __init__(self, config: LoggerConfig, say: Say) -> None:
        """Hold the settings; nothing is imported or contacted before :meth:`start`."""
        self._config, self._say = config, say

    def start(self, run: RunInfo) -> None:
        """Begin a run; a resumed one has the same id. W&B cannot delete what an interrupted run logged too far.

        Raises:
            ConfigError: ``logger.mode=online`` without an API key.
            SwitchedOff: W&B's own settings disable it.
        """
        mode, reason = choose_mode(self._config.mode)
        if mode == "disabled":
            raise SwitchedOff(f"switched off by {reason}")
        hint = f"logging offline, upload later with: wandb sync '{run.directory / 'wandb'}'/offline-run-*"
        if reason:
            self._say(f"W&B: {reason}" + (f"; {hint}" if mode == "offline" else ""))
        arguments: dict[str, Any] = {
            "project": self._config.project,
            "entity": self._config.entity,
            "name": run.name,
            "group": self._config.group if self._config.group is not None else run.group,
            "tags": list(dict.fromkeys([*self._config.tags, *run.tags])),
            "config": dict(run.config),
            "dir": str(run.directory),
            "id": os.environ.get("WANDB_RUN_ID") or run.stored_id("wandb"),  # an agent of a sweep sets the variable
        }
        self._run: Any = None
        if mode != "offline":
            try:
                self._run = _begin(mode, arguments)
            except Exception as error:
                line = one_line(error)[:200]
                rejected = re.search(r"\b401\b|API key", line)
                what = f"{server_url()} rejects the API key" if rejected else "cannot log online"
                self._say(f"W&B: {what} ({line}); {hint}")
                arguments["id"] += "-offline"  # W&B still holds the other id as in use
        if self._run is None:
            self._run = _begin("offline", arguments)
        # An x axis of our own: W&B's drops whatever comes at a step it has passed, as after a resume.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row to the history."""
        self._run.log({**values, "step": step})

    def heatmap(self, key: str, masks: Mask, step: int) -> None:
        """Record masks as one picture, a panel a route."""
        import wandb

        self._run.log({key: wandb.Image(draw_masks(masks)), "step": step})

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Record a table."""
        import wandb

        self._run.log({key: wandb.Table(list(columns), [list(row) for row in rows])})

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Fill in the run's row in the table of runs."""
        self._run.summary.update(dict(values))

    def artifact(self, path: Path, name: str, type: str) -> None:
        """Record a file or folder."""
        import wandb

        artifact = wandb.Artifact(name, type=type)
        (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
        self._run.log_artifact(artifact)

    def finish(self, status: str, step: int) -> None:
        """End the run, with an exit code unless it is done."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == "done" else 1)


def choose_mode(asked: str) -> tuple[Mode, str | None]:
    """Decide how W&B logs: an explicit ``logger.mode`` decides, else W&B's own settings, without a key offline.

    Returns the mode, and the reason to show where it is not the requested one. ConfigError: ``online`` without a key.
    """
    own, source = own_mode()
    overruled = f"logger.mode={asked} overrules {source}" if source and asked not in ("auto", own) else None
    if asked == "auto" and own in ("offline", "disabled"):
        return own, source if own == "disabled" else None
    if asked == "offline":
        return "offline", overruled
    server = server_url()
    if not has_key() and asked == "online":
        raise ConfigError(
            f"logger.mode=online needs an API key for {server}: set WANDB_API_KEY or run `wandb login`, "
            "or use logger.mode=auto (offline without a key) or logger.mode=offline"
        )
    if not has_key():
        return "offline", "no API key"
    if not reachable(server):
        return "offline", "; ".join(filter(None, [overruled, f"{server} cannot be reached"]))
    return own if asked == "auto" else "online", overruled


def own_mode() -> tuple[Mode, str | None]:
    """W&B's own mode and the setting it comes from, None where nothing is set: environment first, then W&B's files."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on"):  # W&B ignores it, others obey it
        return "disabled", f"WANDB_DISABLED={os.environ['WANDB_DISABLED']}"
    variable = os.environ.get("WANDB_MODE")
    if variable == "disabled":  # without importing W&B
        return "disabled", "WANDB_MODE=disabled"
    mode = _settings().mode
    if variable is not None:
        return SPELLINGS.get(mode, mode), f"WANDB_MODE={variable}"
    return SPELLINGS.get(mode, mode), None if mode == "online" else f"W&B's settings file (mode={mode})"


def _begin(mode: Mode, arguments: dict[str, Any]) -> Any:
    _settings()  # wandb.init logs in, and prints about it, before it reads the settings it is given
    import wandb

    resume: Literal["allow"] | None = "allow" if mode == "online" else None
    return wandb.init(mode=mode, resume=resume, settings=_quiet(), reinit="create_new", **arguments)


def server_url() -> str:
    """The W&B server in use: W&B's own, or that of WANDB_BASE_URL or ``wandb login --host``."""
    return str(_settings().base_url)


def has_key() -> bool:
    """Whether W&B has a key for its server without asking: in the environment or in the netrc file."""
    from wandb.sdk.lib.wbauth import read_netrc_auth

    settings = _settings()
    return bool(settings.api_key or settings.identity_token_file or read_netrc_auth(host=settings.base_url))


def _settings() -> Any:
    """W&B's settings in this process, which it reads once from environment and files; ours make it quiet."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its reports end up on the console where they fail
    import wandb

    return wandb.setup(settings=_quiet()).settings


def _quiet() -> Any:
    import wandb

    return wandb.Settings(
        silent=True, console="off", disable_git=True, init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS
    )


def reachable(server: str) -> bool:
    """Whether the server accepts connections. Behind a proxy only W&B itself can find out."""
    if urllib.request.getproxies():
        return True
    address = urlsplit(server)
    port = address.port if address.port is not None else (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False
