"""Where metrics go besides the run directory. A logger may fail; a run never fails because of its logger."""

from __future__ import annotations

import functools
import netrc
import os
import secrets
import socket
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from mmpt.config.schema import LoggerConfig
from mmpt.errors import RunError

Say = Callable[[str], None]
Mode = Literal["online", "offline"]

PROBE_SECONDS = 3.0  # until an unreachable server counts as such
INIT_SECONDS = 15  # until a server that answers too slowly is given up
FINISH_SECONDS = 60.0  # until an upload that doesn't end is left to `wandb sync`


class Logger(Protocol):
    """What the trainer tells a logger, in this order: start, then any of the middle ones, then finish."""

    def start(
        self,
        *,
        name: str,
        group: str | None,
        config: Mapping[str, Any],
        directory: Path,
        tags: Sequence[str] = (),
    ) -> None:
        """Begin a run, or go on with the one that began in the same run directory.

        Args:
            name: What the run is called.
            group: Runs to be averaged, such as the seeds of one setting, share a group.
            config: The resolved configuration, plain values.
            directory: The run directory; all local files of the logger stay inside.
            tags: Labels to filter by.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers at an optimizer step."""

    def heatmap(self, key: str, array: npt.ArrayLike, step: int) -> None:
        """Record what R masks let through: ``array: (R, S, L)``, values in [0, 1]."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table."""

    def artifact(self, path: Path, name: str, type: str) -> None:
        """Record a file or a folder, such as the adapter."""

    def finish(self, status: str) -> None:
        """End the run: ``done``, ``failed`` or ``interrupted``."""


class NoLogger:
    """Records nothing; the run directory has it all anyway."""

    def start(
        self,
        *,
        name: str,
        group: str | None,
        config: Mapping[str, Any],
        directory: Path,
        tags: Sequence[str] = (),
    ) -> None:
        """Do nothing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def heatmap(self, key: str, array: npt.ArrayLike, step: int) -> None:
        """Do nothing."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Do nothing."""

    def artifact(self, path: Path, name: str, type: str) -> None:
        """Do nothing."""

    def finish(self, status: str) -> None:
        """Do nothing."""


class WandbLogger:
    """Weights & Biases, online or offline, without prompts and without output of its own."""

    def __init__(self, config: LoggerConfig, say: Say) -> None:
        """Keep the settings; nothing is imported or contacted before :meth:`start`.

        Args:
            config: Project, entity and mode.
            say: Shows one line to the user.
        """
        self._config = config
        self._say = say
        self._run: Any = None
        self._complained: set[str] = set()

    def start(
        self,
        *,
        name: str,
        group: str | None,
        config: Mapping[str, Any],
        directory: Path,
        tags: Sequence[str] = (),
    ) -> None:
        """Begin a run; see :meth:`Logger.start`.

        Raises:
            RunError: ``logger.mode=online`` without an API key.
        """
        mode, reason = self._choose_mode()
        if reason:
            self._say(f"W&B: {reason}; {_upload_hint(directory)}")
        arguments: dict[str, Any] = {
            "project": self._config.project,
            "entity": self._config.entity,
            "name": name,
            "group": self._config.group if self._config.group is not None else group,
            "tags": list(dict.fromkeys([*self._config.tags, *tags])),
            "config": dict(config),
            "dir": str(directory),
        }
        try:
            arguments["id"] = os.environ.get("WANDB_RUN_ID") or _run_id(directory)  # an agent of a sweep sets it
            self._run = _init(mode, arguments, self._say)
            # An x axis of our own: W&B's drops whatever comes at a step it has passed, as after a resume.
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # as in _safely
            self._complain("starting", error)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers; see :meth:`Logger.log`."""
        self._safely("logging", lambda run, wandb: run.log({**values, "step": step}))

    def heatmap(self, key: str, array: npt.ArrayLike, step: int) -> None:
        """Record masks as one picture, a panel a route; see :meth:`Logger.heatmap`."""
        self._safely("drawing", lambda run, wandb: run.log({key: wandb.Image(draw_masks(array)), "step": step}))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table; see :meth:`Logger.table`."""
        data = [list(row) for row in rows]
        self._safely("logging a table", lambda run, wandb: run.log({key: wandb.Table(list(columns), data)}))

    def artifact(self, path: Path, name: str, type: str) -> None:
        """Record a file or folder; see :meth:`Logger.artifact`."""

        def save(run: Any, wandb: Any) -> None:
            artifact = wandb.Artifact(name, type=type)
            if path.is_dir():
                artifact.add_dir(str(path))
            else:
                artifact.add_file(str(path))
            run.log_artifact(artifact)

        self._safely("saving an artifact", save)

    def finish(self, status: str) -> None:
        """End the run; see :meth:`Logger.finish`."""

        def end(run: Any, wandb: Any) -> None:
            run.summary["status"] = status
            run.finish(exit_code=0 if status == "done" else 1)

        self._safely("finishing", end)
        self._run = None

    def _safely(self, what: str, operation: Callable[[Any, Any], object]) -> None:
        """Call an operation with the W&B run and module; its error becomes one line."""
        if self._run is None:
            return
        import wandb

        try:
            operation(self._run, wandb)
        except Exception as error:  # W&B raises errors of many kinds; none may stop a run
            self._complain(what, error)

    def _complain(self, what: str, error: Exception) -> None:
        """Say what failed, once for each kind of operation."""
        if what not in self._complained:
            self._complained.add(what)
            line = " ".join(str(error).split())[:200]
            self._say(f"W&B: {what} failed ({type(error).__name__}: {line}); the run goes on")

    def _choose_mode(self) -> tuple[Mode, str | None]:
        """Settle on online or offline, with the reason where offline is not what was asked for."""
        asked: str = self._config.mode
        if asked == "auto":
            asked = os.environ.get("WANDB_MODE", "auto")
        if asked == "offline":
            return "offline", None
        server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        if not _has_key(server):
            if self._config.mode == "online":
                raise RunError(
                    f"logger.mode=online needs an API key for {server}: set WANDB_API_KEY or run `wandb login`, "
                    "or use logger.mode=auto (offline without a key) or logger=none"
                )
            return "offline", "no API key"
        if not _reachable(server):
            return "offline", f"{server} can't be reached"
        return "online", None


def make_logger(config: LoggerConfig, say: Say | None = None) -> Logger:
    """Make the logger a configuration names.

    Args:
        config: The logger group. ``WANDB_MODE=disabled`` in the environment switches W&B off.
        say: Shows one line to the user; standard error where None.

    Returns:
        A logger that has not started.
    """
    if config.name == "none":
        return NoLogger()
    show = say if say is not None else functools.partial(print, file=sys.stderr)
    if os.environ.get("WANDB_MODE") == "disabled":
        show("W&B: switched off by WANDB_MODE=disabled")
        return NoLogger()
    return WandbLogger(config, show)


def draw_masks(array: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Draw masks side by side, tokens down and layers across, dark where the prefix is shut out.

    Args:
        array: ``(R, S, L)``, values in [0, 1].

    Returns:
        The picture, ``(height, width, 4)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    masks = np.asarray(array, dtype=np.float32)
    routes, tokens, layers = masks.shape
    figure = Figure(figsize=(1 + routes * (0.6 + 0.2 * layers), 1 + 0.25 * tokens), dpi=80, layout="constrained")
    panels = figure.subplots(1, routes, squeeze=False, sharey=True)[0]
    for route, panel in enumerate(panels):
        image = panel.imshow(masks[route], vmin=0, vmax=1, cmap="viridis", aspect="auto")
        panel.set(title=f"route {route}", xlabel="layer")
    panels[0].set_ylabel("token")
    figure.colorbar(image, ax=list(panels))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def _init(mode: Mode, arguments: dict[str, Any], say: Say) -> Any:
    """Begin a W&B run; one that can't begin online begins offline."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its reports end up on the console where they fail
    import wandb

    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS
    )
    wandb.setup(settings=settings)  # wandb.init logs in, and talks about it, before it looks at its settings

    def begin(mode: Mode) -> Any:
        resume: Literal["allow"] | None = "allow" if mode == "online" else None
        return wandb.init(mode=mode, resume=resume, settings=settings, reinit="create_new", **arguments)

    if mode == "online":
        try:
            return begin("online")
        except Exception as error:
            line = " ".join(str(error).split())[:200]
            say(f"W&B: can't log online ({line}); {_upload_hint(Path(arguments['dir']))}")
            arguments = {**arguments, "id": secrets.token_hex(4)}  # W&B still holds the other id as in use
    return begin("offline")


def _upload_hint(directory: Path) -> str:
    return f"logging offline, upload later with: wandb sync '{directory / 'wandb'}'/offline-run-*"


def _run_id(directory: Path) -> str:
    """The id that makes a resumed run go on in W&B: drawn once, kept in the run directory."""
    path = directory / "wandb" / "run_id"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _has_key(server: str) -> bool:
    """Whether W&B would find an API key without asking: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    files = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for path in (Path(file).expanduser() for file in files):
        try:
            return netrc.netrc(path).authenticators(urlsplit(server).netloc) is not None
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _reachable(server: str) -> bool:
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
