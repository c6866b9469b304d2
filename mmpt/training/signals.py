"""Stopping in good order: SIGINT and SIGTERM end a run at once, or, while it trains, once a checkpoint is written.

Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any

GRACE = 3.0  # seconds that a step in progress and its checkpoint may take
SHUTDOWN = 1.5  # seconds that loggers may take afterwards


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, number: int) -> None:
        """Store the signal's number."""
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _Request:
    """The signal that has come, and the time that is left."""

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}  # handlers of others, by signal; empty: signals are not handled
        self.number: int | None = None  # the first signal; further ones change nothing
        self.overdue = False  # whether the time is up
        self.rings = False  # whether the signal that comes next is the timer's
        self.timer: threading.Timer | None = None

    def wait(self, seconds: float) -> None:
        """Have :class:`Stopped` raised in the main thread when the time is up."""
        self.timer = threading.Timer(seconds, self._ring)
        self.timer.daemon = True
        self.timer.start()

    def rest(self) -> None:
        """Stop the clock."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _ring(self) -> None:
        thread = threading.main_thread().ident
        assert thread is not None
        assert self.number is not None
        self.overdue = self.rings = True
        signal.pthread_kill(thread, self.number)


_request = _Request()
_deferred: ContextVar[bool] = ContextVar("deferred", default=False)


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Within the block, signals raise :class:`Stopped`; then whoever handled them before has its turn.

    A signal that is ignored stays so, and so does what another library does with SIGTERM: jobs of submitit outlive it,
    and end with a signal of their own. Blocks may be nested; only the main thread can handle signals.
    """
    global _request
    if _request.before or threading.current_thread() is not threading.main_thread():
        yield
        return
    _request = mine = _Request()
    mine.before = {number: signal.signal(number, _handle) for number in _ours()}
    try:
        yield
    finally:
        mine.rest()
        for number, handler in mine.before.items():
            signal.signal(number, handler)
        _request = _Request()
        if mine.number is not None and _foreign(mine.before[mine.number]):
            try:
                mine.before[mine.number](mine.number, None)
            except subprocess.SubprocessError as error:  # submitit asks for a requeue that Slurm has already begun
                print(f"the job was not requeued by itself: {error}", file=sys.stderr)


def requested() -> bool:
    """Whether a signal has come."""
    return _request.number is not None


def signal_number() -> int:
    """The signal that has come; SIGTERM where it came to another process of the run."""
    return signal.SIGTERM if _request.number is None else _request.number


def time_left() -> bool:
    """Whether there is time left for checkpoints."""
    return not _request.overdue


def check() -> None:
    """End here, by raising Stopped, if a signal has come."""
    if _request.number is not None:
        raise Stopped(_request.number)


@contextlib.contextmanager
def deferred(yes: bool = True) -> Iterator[None]:
    """Within the block, a signal is only noted, for :data:`GRACE` seconds; with ``yes=False`` it raises at once again.

    Stopped: a signal came before the block, or within it and nobody looked.
    """
    check()
    token = _deferred.set(yes)
    try:
        yield
    finally:
        _deferred.reset(token)
    check()


@contextlib.contextmanager
def shutdown() -> Iterator[None]:
    """Cut the block short after :data:`SHUTDOWN` seconds where a signal has come."""
    request = _request
    request.rest()
    if request.number is not None:
        request.wait(SHUTDOWN)
    with contextlib.suppress(Stopped):
        yield
    request.rest()


def _ours() -> Iterator[int]:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            yield number
    if "SUBMITIT_EXECUTOR" in os.environ:
        number = signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
        if _foreign(signal.getsignal(number)):
            yield number


def _foreign(handler: Callable[..., Any] | int | None) -> bool:
    return callable(handler) and not isinstance(handler, signal.Handlers) and handler != signal.default_int_handler


def _handle(number: int, frame: FrameType | None) -> None:
    request = _request
    if request.number is None:
        request.number = number
        request.wait(GRACE)
        if _deferred.get():
            return
    elif not request.rings:
        return
    request.rings = False
    raise Stopped(request.number)
