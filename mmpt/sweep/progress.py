"""What a sweep shows: a line for each trial as it ends, whatever process it ran in, and a table at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from mmpt.runs.record import is_busy
from mmpt.sweep.outcomes import Outcome, Outcomes
from mmpt.sweep.table import ranked
from mmpt.sweep.trial import record_without_directory
from mmpt.utils.process import is_alive
from mmpt.utils.text import duration
from mmpt.utils.untrusted import printable

POLL_SECONDS = 0.2
PAUSE = 10  # looks at the files are so many times as far apart as one takes: a network disk is slow, and others use it
BUSY_SECONDS = 60.0  # whether another machine's process still lives shows when its run is tried again


class Progress:
    """Reads how trials are doing while they run, and prints a line for each that ends."""

    def __init__(self, outcomes: Outcomes, total: int | None) -> None:
        """Remember where to read and where to print: trials send their own output elsewhere."""
        self._files, self.total = outcomes, total
        self._out, self._err = sys.stdout, sys.stderr
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.ended: dict[int, Outcome] = {}
        self._worked = 0  # of those ended, trials that this command worked on
        self._open: dict[int, Outcome] = {}  # started or busy
        self._deaths: dict[int, set[float]] = defaultdict(set)  # when each that died had begun, by number
        self._waiting: set[int] = set()  # busy trials whose line was printed

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Print lines as they come, until the block ends; say how far the sweep came if the user ends it."""
        stop = threading.Event()

        def follow() -> None:
            seconds = 0.0
            while not stop.wait(pause_after(seconds)):
                began = time.monotonic()
                self.poll()
                seconds = time.monotonic() - began

        thread = threading.Thread(target=follow, name="sweep progress", daemon=True)
        thread.start()
        try:
            yield
        except KeyboardInterrupt:
            self.poll()
            of = "" if self.total is None else f" of {self.total}"
            print(
                f"interrupted after {len(self.ended)}{of} trials; run the same command again to resume", file=self._out
            )
            raise
        finally:
            stop.set()
            thread.join()
            self.poll()

    def poll(self) -> None:
        """Print what is new."""
        with self._lock:
            for outcome in self._files.news(set(self.ended)):
                if not outcome.ended:
                    self._open[outcome.number] = outcome
                    if outcome.state == "busy" and outcome.number not in self._waiting:
                        self._waiting.add(outcome.number)
                        text = "another process works on this run; the trial is tried again later"
                        print(f"{self._name(outcome)}  {outcome.trial.overrides}: {text}", file=self._out, flush=True)
                    continue
                self._open.pop(outcome.number, None)
                self.ended[outcome.number] = outcome
                self._worked += not outcome.earlier
                print(printable(self._line(outcome)), file=self._err if outcome.failed else self._out, flush=True)

    def lost(self) -> list[Outcome]:
        """Trials that began and did not end, once those end whose processes on this machine are still alive."""
        self.poll()
        while any(_alive(outcome) for outcome in self._in_state("started")):
            time.sleep(POLL_SECONDS)
            self.poll()
        return self._in_state("started")

    def busy(self) -> list[Outcome]:
        """Trials whose runs other processes worked on."""
        return self._in_state("busy")

    def died_often(self, lost: Iterable[Outcome], most: int) -> list[Outcome]:
        """Those of the lost trials whose processes have now died ``most`` times."""
        self._deaths |= {outcome.number: self._deaths[outcome.number] | {outcome.at} for outcome in lost}
        return [outcome for outcome in lost if len(self._deaths[outcome.number]) >= most]

    def wait_for_busy(self) -> None:
        """Wait until one of the runs that other processes work on may be free."""
        last = time.monotonic() + BUSY_SECONDS
        directories = [Path(outcome.directory) for outcome in self.busy() if outcome.directory is not None]
        time.sleep(POLL_SECONDS)
        while time.monotonic() < last and all(is_busy(directory) for directory in directories):
            time.sleep(POLL_SECONDS)
        for outcome in self.busy():  # it begins anew, and may be busy again
            self._files.remove(outcome.number)
            self._open.pop(outcome.number)

    def fail(self, outcomes: Iterable[Outcome], reason: str | None = None) -> None:
        """End trials as failed: because of a reason where their process died, else with the error they have."""
        for outcome in outcomes:
            died = (
                f"its process {outcome.host}:{outcome.pid} ended without a result (killed, or out of memory): {reason}"
            )
            failed = replace(outcome, state="failed", error=outcome.error if reason is None else died)
            record_without_directory(failed, self._files)
            self._files.write(failed)
        self.poll()

    def summary(self) -> int:
        """Print the table and the counts; returns the exit code."""
        outcomes = [self.ended[number] for number in sorted(self.ended)]
        failed = sum(outcome.failed for outcome in outcomes)
        before = sum(outcome.earlier and not outcome.failed for outcome in outcomes)
        print(f"\n{ranked(outcomes)}", file=self._out)
        counts = [f"{len(outcomes) - failed} trials done" + (f" ({before} of them before)" if before else "")]
        counts += [f"{failed} failed"] if failed else []
        missing = 0 if self.total is None else self.total - len(outcomes)
        counts += [f"{missing} not run"] if missing else []
        print(f"{', '.join(counts)}; run directories: {self._files.root}", file=self._out, flush=True)
        if failed:
            print(f"error: {failed} trial(s) of the sweep failed; see the lines above", file=self._err, flush=True)
        return 1 if failed or missing else 0

    def _in_state(self, state: str) -> list[Outcome]:
        with self._lock:
            return [outcome for _, outcome in sorted(self._open.items()) if outcome.state == state]

    def _name(self, outcome: Outcome) -> str:
        return f"trial {outcome.number + 1}" + ("" if self.total is None else f"/{self.total}")

    def _line(self, outcome: Outcome) -> str:
        words = outcome.trial.overrides or "(no overrides)"
        if outcome.failed:
            see = f"; see {outcome.log}" if outcome.log is not None and not outcome.earlier else ""
            return f"error: {self._name(outcome)}  {words}: {outcome.error}{see}{self._left('; ')}"
        scores = {name: outcome.score(name) for name in ("validation", "test")}
        figures = [f"{name} {'none' if score is None else f'{score:.3f}'}" for name, score in scores.items()]
        figures = ["pruned"] if outcome.state == "pruned" else figures
        took = "done before" if outcome.earlier else duration(outcome.seconds)
        took += ", resumed" if outcome.resumed else ""
        return "  ".join([self._name(outcome), words, *figures, took]) + self._left("  ")

    def _left(self, before: str) -> str:
        """Trials left, and the time they may take at the pace so far."""
        if self.total is None:
            return ""
        left = self.total - len(self.ended)
        if left == 0 or self._worked == 0:
            return f"{before}{left} left"
        pace = (time.monotonic() - self._began) / self._worked
        return f"{before}{left} left, about {duration(pace * left)}"


def pause_after(seconds: float) -> float:
    """How long to wait after a look at the files that took so long."""
    return max(POLL_SECONDS, PAUSE * seconds)


def _alive(outcome: Outcome) -> bool:
    """Whether the process of a trial is another one of this machine, and alive."""
    return outcome.pid != os.getpid() and is_alive(outcome.host, outcome.pid, since=outcome.at) is True
