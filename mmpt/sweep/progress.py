"""What a sweep shows: a line for each trial as it ends, whatever process it ran in, and a table at the end.

A terminal also has a display of the trials that run, for as long as they do.
"""

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
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from mmpt.runs.names import LOSS, VALIDATION_SCORE
from mmpt.runs.record import is_busy
from mmpt.sweep.outcomes import Outcome, Outcomes, State
from mmpt.sweep.plan import Plan
from mmpt.sweep.table import ranked, words
from mmpt.sweep.trial import record_without_directory
from mmpt.utils.machine import is_alive
from mmpt.utils.screen import new_console, program, show, show_command, show_markdown
from mmpt.utils.text import duration
from mmpt.utils.untrusted import parse_json, printable

POLL_SECONDS = 0.2
PAUSE = 10  # looks at the files are so many times as far apart as one takes: a network disk is slow, and others use it
BUSY_SECONDS = 60.0  # whether another machine's process still lives shows when its run is tried again
ROWS = 10  # running trials in the display
TAIL = 4096  # bytes of metrics.jsonl that have the last loss and score


class Progress:
    """Reads how trials are doing while they run, and prints a line for each that ends."""

    def __init__(self, outcomes: Outcomes, plan: Plan) -> None:
        """Remember where to read and where to print: trials send their own output elsewhere."""
        self._files, self._plan, self.total = outcomes, plan, plan.total
        self._out = self._err = new_console(sys.stdout)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.ended: dict[int, Outcome] = {}
        self._worked = 0  # of those ended, trials that this command worked on
        self._open: dict[int, Outcome] = {}  # started or busy
        self._deaths: dict[int, set[float]] = defaultdict(set)  # when each that died had begun, by number
        self._waiting: set[int] = set()  # busy trials whose line was printed
        live = self._out.is_terminal and not plan.shows_all
        self._live: Live | None = None
        if live:
            self._live = Live(console=self._out, get_renderable=self._display, transient=True, auto_refresh=False)
        if not (live and sys.stderr.isatty()):
            self._err = new_console(sys.stderr)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Print lines as they come, until the block ends; say how far the sweep came if the user ends it."""
        stop = threading.Event()
        each = f", each with {' '.join(self._plan.constant)}" if self._plan.constant else ""
        trials = "trials" if self.total is None else f"{self.total} trials"
        show(self._out, f"mmpt: {trials}{each}; directory: {self._plan.root}")

        def follow() -> None:
            seconds = 0.0
            while not stop.wait(pause_after(seconds)):
                began = time.monotonic()
                self.poll()
                seconds = time.monotonic() - began

        thread = threading.Thread(target=follow, name="sweep progress", daemon=True)
        with self._live or contextlib.nullcontext():
            thread.start()
            try:
                yield
            except KeyboardInterrupt:
                self.poll()
                of = "" if self.total is None else f" of {self.total}"
                show(self._out, f"Stopped after {len(self.ended)}{of} trials. Run the same command again to resume.")
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
                        show(self._out, f"{self._name(outcome)}: {text}")
                    continue
                self._open.pop(outcome.number, None)
                self.ended[outcome.number] = outcome
                self._worked += not outcome.earlier
                show(self._err if outcome.failed else self._out, self._line(outcome))
            if self._live is not None and self._live.is_started:
                self._live.refresh()

    def lost(self) -> list[Outcome]:
        """Trials that began and did not end, once those end whose processes on this machine are still alive."""
        self.poll()
        while any(_alive(outcome) for outcome in self.in_state("started")):
            time.sleep(POLL_SECONDS)
            self.poll()
        return self.in_state("started")

    def in_state(self, state: State) -> list[Outcome]:
        """Trials that began and did not end, with that state; busy are those whose runs other processes worked on."""
        with self._lock:
            return [outcome for _, outcome in sorted(self._open.items()) if outcome.state == state]

    def died_often(self, lost: Iterable[Outcome], most: int) -> list[Outcome]:
        """Those of the lost trials whose processes have now died ``most`` times."""
        self._deaths |= {outcome.number: self._deaths[outcome.number] | {outcome.at} for outcome in lost}
        return [outcome for outcome in lost if len(self._deaths[outcome.number]) >= most]

    def wait_for_busy(self) -> None:
        """Wait until one of the runs that other processes work on may be free."""
        last = time.monotonic() + BUSY_SECONDS
        directories = [Path(outcome.directory) for outcome in self.in_state("busy") if outcome.directory is not None]
        time.sleep(POLL_SECONDS)
        while time.monotonic() < last and all(is_busy(directory) for directory in directories):
            time.sleep(POLL_SECONDS)
        for outcome in self.in_state("busy"):  # it begins anew, and may be busy again
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
        """Print the table, the counts and the command of a report; returns the exit code."""
        outcomes = [self.ended[number] for number in sorted(self.ended)]
        failed = sum(outcome.failed for outcome in outcomes)
        before = sum(outcome.earlier and not outcome.failed for outcome in outcomes)
        show(self._out, "")
        show_markdown(self._out, ranked(outcomes))
        counts = [f"{len(outcomes) - failed} trials done" + (f" ({before} of them before)" if before else "")]
        counts += [f"{failed} failed"] if failed else []
        missing = 0 if self.total is None else self.total - len(outcomes)
        counts += [f"{missing} not run"] if missing else []
        show(self._out, f"{', '.join(counts)}; run directories: {self._files.root}")
        if any(outcome.result is not None for outcome in outcomes):
            show(self._out, "next:")
            show_command(self._out, [*program("report"), str(self._plan.root)])
        if failed:
            show(self._err, f"error: {failed} trial(s) of the sweep failed; see the lines above")
        return 1 if failed or missing else 0

    def _name(self, outcome: Outcome) -> str:
        """The number of a trial, and the words that the others do not all have."""
        number = f"trial {outcome.number + 1}" + ("" if self.total is None else f"/{self.total}")
        return "  ".join(filter(None, [number, " ".join(words(outcome, self._plan.constant))]))

    def _line(self, outcome: Outcome) -> str:
        left = "" if self._live is not None else self._left()  # the display has it
        if outcome.failed:
            see = f"see {outcome.log}" if outcome.log is not None and not outcome.earlier else ""
            return f"error: {self._name(outcome)}: {'; '.join(filter(None, [outcome.error, see, left]))}"
        scores = {name: outcome.score(name) for name in ("validation", "test")}
        figures = [f"{name} {'none' if score is None else f'{score:.3f}'}" for name, score in scores.items()]
        figures = ["pruned"] if outcome.state == "pruned" else figures
        took = "done before" if outcome.earlier else duration(outcome.seconds)
        took += ", resumed" if outcome.resumed else ""
        return "  ".join(filter(None, [self._name(outcome), *figures, took, left]))

    def _left(self) -> str:
        """Trials left, and the time they may take at the pace so far."""
        if self.total is None:
            return ""
        left = self.total - len(self.ended)
        if left == 0 or self._worked == 0:
            return f"{left} left"
        return f"{left} left, about {duration((time.monotonic() - self._began) / self._worked * left)}"

    def _display(self) -> Group:
        """A bar of the sweep, and a row for each of the trials that run."""
        bar = Table.grid("", Column(ratio=1), "", padding=(0, 1), expand=True)
        of = "" if self.total is None else f" of {self.total}"
        bar.add_row(f"{len(self.ended)}{of} trials", ProgressBar(self.total, len(self.ended)), self._left())
        running = [outcome for _, outcome in sorted(self._open.items()) if outcome.state == "started"]
        rows = [f"  {self._name(outcome)}  {_latest(outcome.directory)}" for outcome in running[:ROWS]]
        rows += [f"  and {len(running) - ROWS} more"] if len(running) > ROWS else []
        return Group(bar, *(Text(row, no_wrap=True, overflow="ellipsis") for row in map(printable, rows)))


def pause_after(seconds: float) -> float:
    """How long to wait after a look at the files that took so long."""
    return max(POLL_SECONDS, PAUSE * seconds)


def _latest(directory: str | None) -> str:
    """Step, loss and score of a trial that runs, from the end of its metrics."""
    values: dict[str, Any] = {}
    with contextlib.suppress(OSError), Path(directory or "", "metrics.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        for line in file:
            with contextlib.suppress(ValueError, TypeError):  # a line that begins or ends elsewhere
                values |= parse_json(line)
    shown = (("step {:d}", "step"), ("loss {:.4f}", LOSS), ("validation {:.3f}", VALIDATION_SCORE))
    return "  ".join(text.format(values[name]) for text, name in shown if name in values)


def _alive(outcome: Outcome) -> bool:
    """Whether the process of a trial is another one of this machine, and alive."""
    return outcome.pid != os.getpid() and is_alive(outcome.host, outcome.pid, since=outcome.at) is True
