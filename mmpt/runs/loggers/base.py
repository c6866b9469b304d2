"""What a logger is, and all loggers of a run behind one interface. Imports nothing heavy."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.errors import ConfigError
from mmpt.utils.files import write_text
from mmpt.utils.untrusted import one_line, read_bytes

Say = Callable[[str], None]
Mask = npt.NDArray[Any]


@dataclass(frozen=True)
class RunInfo:
    """A run, as loggers see it."""

    name: str  # what the run is called
    group: str | None  # runs to be averaged, such as the seeds of one setting, share a group
    config: Mapping[str, Any]  # the resolved configuration, plain values
    directory: Path  # the run directory
    tags: Sequence[str] = ()  # labels to filter by
    # the last step that is still valid of an interrupted run; later ones come again. None: a new run
    resume_step: int | None = None

    def stored_id(self, folder: str) -> str:
        """An id that distinguishes the run at a service: drawn once, and stored as FOLDER/run_id.

        Raises:
            ConfigError: The file holds anything else; a logger makes a path, an address or a name of it.
        """
        path = self.directory / folder / "run_id"
        if not path.exists():
            write_text(path, secrets.token_hex(4))
        identity = read_bytes(path).decode("utf-8", errors="replace")
        if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", identity) is None:
            raise ConfigError(f"{path} holds no id of a run; delete it, and the run gets a new one")
        return identity


class SwitchedOff(Exception):
    """Settings of a backend's own disable it: its message names them."""


class Logger:
    """One backend for metrics, called in this order: start, then any of the middle ones, then finish.

    A logger overrides what its backend can show, and may raise anything: :class:`Loggers` makes one line of it, and the
    run continues. Only a ConfigError ends it.
    """

    label = ""  # its name in messages

    def start(self, run: RunInfo) -> None:
        """Begin a run, or continue the one that began in the same run directory.

        Raises:
            ConfigError: The run must not begin, because the settings ask for what is impossible.
            SwitchedOff: The logger is to be left out.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers at an optimizer step."""

    def heatmap(self, key: str, masks: Mask, step: int) -> None:
        """Record what R masks let through: ``masks: (R, S, L)``, values in [0, 1]."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Record a table; ``step`` is the last one that was logged."""

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers about the whole run, such as its test score; ``step`` is the last one that was logged."""

    def artifact(self, path: Path, name: str, type: str) -> None:
        """Record a file or a folder, such as the adapter."""

    def finish(self, status: str, step: int) -> None:
        """End the run: ``done``, ``failed`` or ``interrupted``."""


class Loggers:
    """All loggers of a run, or none: each call goes to each. A logger may fail; a run never fails because of one."""

    def __init__(self, loggers: Sequence[Logger], say: Say) -> None:
        """Hold loggers that have not started; ``say`` shows one line to the user."""
        self.loggers = tuple(loggers)
        self._say = say
        self._started: list[Logger] = []
        self._reported: set[tuple[str, str]] = set()
        self._step = 0

    def start(self, run: RunInfo) -> None:
        """See :meth:`Logger.start`; a logger that fails to start is left out."""
        self._started = [one for one in self.loggers if self._call(one, "starting", lambda logger: logger.start(run))]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See :meth:`Logger.log`."""
        self._step = step
        self._each("logging", lambda logger: logger.log(step, values))

    def heatmap(self, key: str, masks: Mask, step: int) -> None:
        """See :meth:`Logger.heatmap`."""
        self._each("drawing", lambda logger: logger.heatmap(key, masks, step))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """See :meth:`Logger.table`."""
        self._each("logging a table", lambda logger: logger.table(key, columns, rows, self._step))

    def summary(self, values: Mapping[str, float]) -> None:
        """See :meth:`Logger.summary`."""
        self._each("logging the summary", lambda logger: logger.summary(values, self._step))

    def artifact(self, path: Path, name: str, type: str) -> None:
        """See :meth:`Logger.artifact`."""
        self._each("saving an artifact", lambda logger: logger.artifact(path, name, type))

    def finish(self, status: str) -> None:
        """See :meth:`Logger.finish`; later calls do nothing."""
        self._each("finishing", lambda logger: logger.finish(status, self._step))
        self._started = []

    def _each(self, what: str, operation: Callable[[Logger], object]) -> None:
        for logger in self._started:
            self._call(logger, what, operation)

    def _call(self, logger: Logger, what: str, operation: Callable[[Logger], object]) -> bool:
        """Whether it succeeded; an error becomes one line, once for each logger and kind of operation."""
        try:
            operation(logger)
        except ConfigError:
            raise
        except SwitchedOff as reason:
            self._say(f"{logger.label}: {reason}")
            return False
        except Exception as error:  # each backend has errors of its own, and none may stop a run
            if (logger.label, what) not in self._reported:
                self._reported.add((logger.label, what))
                line = one_line(error)[:200]
                self._say(f"{logger.label}: {what} failed ({type(error).__name__}: {line}); the run continues")
            return False
        return True


def draw_masks(array: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Draw masks ``(R, S, L)`` in [0, 1] side by side, tokens down and layers across, as ``(height, width, 4)``."""
    masks = np.asarray(array, dtype=np.float32)
    return _draw(masks.tobytes(), masks.shape)


@functools.lru_cache(maxsize=8)  # several loggers show the same picture, and drawing takes a few hundred milliseconds
def _draw(values: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    masks = np.frombuffer(values, dtype=np.float32).reshape(shape)
    routes, tokens, layers = masks.shape
    width, height = 1.6 + routes * (0.4 + 0.2 * layers), 1 + 0.25 * tokens  # inches
    figure = Figure(figsize=(width, height), dpi=80)
    panels = figure.subplots(1, routes, squeeze=False, sharey=True)[0]
    for route, panel in enumerate(panels):
        image = panel.imshow(masks[route], vmin=0, vmax=1, cmap="viridis", aspect="auto")
        panel.set(title=f"route {route}", xlabel="layer")
        panel.locator_params(integer=True)
    panels[0].set_ylabel("token")
    figure.subplots_adjust(left=0.6 / width, right=1 - 0.2 / width, bottom=0.5 / height, top=1 - 0.35 / height)
    figure.colorbar(image, ax=list(panels))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
