"""What a sweep shows: a line for each trial as it ends, whatever process it ran in, and a table at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mmpt.runs.record import is_busy
from mmpt.sweep.ledger import Ledger, Outcome
from mmpt.sweep.table import ranked, score
from mmpt.utils.process import is_alive
from mmpt.utils.text import duration
from mmpt.utils.untrusted import printable

POLL_SECONDS = 0.2
BUSY_SECONDS = 60.0  # whether another machine's process still lives shows when its run is tried again


class Watcher:
    """Reads the ledger while trials run, and prints what is new."""

    def __init__(self, ledger: Ledger, total: int | None) -> None:
        """Keep where to read and where to print: trials send their own output elsewhere."""
        self.ledger, self.total = ledger, total
        self._out, self._err = sys.stdout, sys.stderr
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.outcomes: dict[int, Outcome] = {}
        self.started: dict[int, list[Outcome]] = {}
        self.busy: dict[int, Outcome] = {}
        self._told: set[int] = set()  # busy trials that had their line

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Print lines as they come, until the block ends."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(POLL_SECONDS):
                self.poll()

        thread = threading.Thread(target=follow, name="sweep lines", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.poll()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Say how far a sweep came that the user ends."""
        try:
            yield
        except KeyboardInterrupt:
            self.poll()
            of = "" if self.total is None else f" of {self.total}"
            print(f"interrupted after {len(self.outcomes)}{of} trials; the same command goes on", file=self._out)
            raise

    def poll(self) -> None:
        """Print what has come since the last time."""
        with self._lock:
            for outcome in self.ledger.news():
                if outcome.state == "started":
                    self.started.setdefault(outcome.number, []).append(outcome)
                elif outcome.state == "busy":
                    self.started.get(outcome.number, [outcome]).pop()  # it didn't begin after all
                    self.busy[outcome.number] = outcome
                    self._tell_busy(outcome)
                elif outcome.number not in self.outcomes:
                    self.busy.pop(outcome.number, None)
                    self.outcomes[outcome.number] = outcome
                    print(printable(self._line(outcome)), file=self._err if outcome.failed else self._out, flush=True)

    def lost(self) -> list[Outcome]:
        """Trials that began and never ended."""
        return [begun[-1] for number, begun in sorted(self.started.items()) if begun and number not in self.outcomes]

    def wait_for_lost(self) -> None:
        """Wait for trials whose process on this machine is still alive."""
        while any(_lives(outcome) for outcome in self.lost()):
            time.sleep(POLL_SECONDS)
            self.poll()

    def wait_for_busy(self) -> None:
        """Wait until one of the runs that other processes are at may be free."""
        last = time.monotonic() + BUSY_SECONDS
        directories = [Path(outcome.directory) for outcome in self.busy.values() if outcome.directory is not None]
        time.sleep(POLL_SECONDS)
        while time.monotonic() < last and all(is_busy(directory) for directory in directories):
            time.sleep(POLL_SECONDS)
        self.busy.clear()  # tried again now; found again, where they still are

    def give_up_busy(self) -> None:
        """Record trials as failed that other processes are at."""
        for begun in list(self.busy.values()):
            self.ledger.add(dataclasses.replace(begun, state="failed"))
        self.poll()

    def give_up(self, lost: list[Outcome], reason: str) -> None:
        """Record trials as failed whose process died."""
        for begun in lost:
            error = f"its process {begun.where} ended without a result (killed, or out of memory): {reason}"
            self.ledger.add(Outcome(begun.number, begun.overrides, "failed", error=error, log=begun.log))
        self.poll()

    def summary(self) -> int:
        """Print the table and the counts; returns the exit code."""
        outcomes = [self.outcomes[number] for number in sorted(self.outcomes)]
        failed = sum(outcome.failed for outcome in outcomes)
        before = sum(outcome.earlier and not outcome.failed for outcome in outcomes)
        print(f"\n{ranked(outcomes)}", file=self._out)
        counts = [f"{len(outcomes) - failed} trials done" + (f" ({before} of them before)" if before else "")]
        counts += [f"{failed} failed"] if failed else []
        missing = 0 if self.total is None else self.total - len(outcomes)
        counts += [f"{missing} not run"] if missing else []
        print(f"{', '.join(counts)}; all of it: {self.ledger.path}", file=self._out, flush=True)
        if failed:
            print(f"error: {failed} trial(s) of the sweep failed; each is told above", file=self._err, flush=True)
        return 1 if failed or missing else 0

    def _tell_busy(self, outcome: Outcome) -> None:
        """Say once that a trial's turn comes later."""
        if outcome.number not in self._told:
            self._told.add(outcome.number)
            text = f"{self._name(outcome)}  {outcome.overrides}: another process is at this run; its turn comes later"
            print(text, file=self._out, flush=True)

    def _name(self, outcome: Outcome) -> str:
        return f"trial {outcome.number + 1}" + ("" if self.total is None else f"/{self.total}")

    def _line(self, outcome: Outcome) -> str:
        of = self._name(outcome)
        if outcome.failed:
            place = f"; see {outcome.log}" if outcome.log is not None and not outcome.earlier else ""
            return f"error: {of}  {outcome.overrides}: {outcome.error}{place}{self._left('; ')}"
        figures = [f"{name} {_shown(score(outcome, name))}" for name in ("validation", "test")]
        figures = ["pruned"] if outcome.state == "pruned" else figures
        took = "done before" if outcome.earlier else duration(outcome.seconds)
        took += ", resumed" if outcome.resumed else ""
        return "  ".join([of, outcome.overrides or "(no overrides)", *figures, took]) + self._left("  ")

    def _left(self, before: str) -> str:
        """Trials left, and the time they may take at the pace so far."""
        if self.total is None:
            return ""
        left = self.total - len(self.outcomes)
        worked = sum(not outcome.earlier for outcome in self.outcomes.values())
        if left == 0 or worked == 0:
            return f"{before}{left} left"
        pace = (time.monotonic() - self._began) / worked
        return f"{before}{left} left, about {duration(pace * left)}"


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _lives(begun: Outcome) -> bool:
    """Whether the process that began a trial is another one of this machine, and lives."""
    host, _, pid = begun.where.rpartition(":")
    return int(pid) != os.getpid() and is_alive(host, int(pid), since=begun.at) is True
