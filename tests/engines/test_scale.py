"""A sweep of 1,000 trials on 64 workers whose shared folder is a slow network disk, in simulated time.

The sweep's files, its progress lines, its table and the report are the real ones; training is a pause of the clock.
Each access to the shared folder is counted and costs round trips. Run with ``-s`` to see the figures.
"""

from __future__ import annotations

import contextlib
import cProfile
import heapq
import io
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mmpt.cli import main
from mmpt.runs.failures import TrialRecord
from mmpt.sweep.outcomes import Outcome, Outcomes
from mmpt.sweep.plan import Plan
from mmpt.sweep.progress import Progress, pause_after
from tests.commands import report

pytestmark = pytest.mark.slow
ROUND_TRIP = 0.002  # seconds; of a file server in the same building, under load
ENTRIES = 100  # names of a folder that one answer holds
TRAINING = 30.0  # seconds of a trial, at least
WORKERS = 64
SEEDS = 4
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir", "os.listdir")


class Disk:
    """Counts accesses to files below a folder, in round trips to its server."""

    def __init__(self, root: Path) -> None:
        """Count nothing yet."""
        self.root, self.trips, self._on = str(root), 0.0, False
        sys.addaudithook(self._audit)  # cannot be removed; it does nothing outside of `counting`

    @contextlib.contextmanager
    def counting(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Count within the block."""
        with patch.context() as changes:
            for name in ("stat", "lstat"):
                changes.setattr(os, name, self._counted(getattr(os, name)))
            self._on = True
            try:
                yield
            finally:
                self._on = False

    def cost(self, action: Callable[[], object]) -> float:
        """Round trips of an action."""
        before = self.trips
        action()
        return self.trips - before

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on or event not in CHANGES or not self._below(arguments[0]):
            return
        self._on = False  # for the look of our own
        entries = len(list(Path(arguments[0]).iterdir())) if event in ("os.scandir", "os.listdir") else 0
        self._on = True
        self.trips += 2 if event == "open" else 1 + entries / ENTRIES

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            self.trips += self._on and self._below(path)
            return function(path, *arguments, **options)

        return call

    def _below(self, path: object) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)


@dataclass(frozen=True)
class Costs:
    """Of a whole sweep: round trips to the disk, and calls of Python functions.

    Attributes:
        seconds: How long the sweep took, in simulated time.
        trial: Round trips of the trial that needed most.
        polls: How often the command looked for news.
        watching: Round trips of all these looks.
        table: Round trips of the table and of cleaning up.
        report: Round trips of a report of all runs.
        calls: Function calls, by part.
    """

    seconds: float
    trial: float
    polls: int
    watching: float
    table: float
    report: float
    calls: dict[str, int]


class Simulation:
    """One sweep in simulated time."""

    def __init__(self, root: Path, example: Path, trials: int) -> None:
        """Create the sweep's folder; ``example`` is a run directory that all trials copy."""
        self.disk, self.example, self.trials = Disk(root), example, trials
        self.root, self.outcomes = root, Outcomes.create(root)
        self.progress = Progress(self.outcomes, Plan(root, trials, "basic", 1))
        self.calls: Counter[str] = Counter()

    def run(self) -> tuple[float, list[float], list[float]]:
        """Run all trials.

        Returns:
            Simulated seconds, round trips by trial, and round trips by look for news.
        """
        waiting = iter(range(self.trials))
        events = [(0.0, number, self.begin) for number in itertools.islice(waiting, WORKERS)]
        trips, looks, now = [0.0] * self.trials, [], 0.0
        next_look = pause_after(0.0)
        while events or len(self.progress.ended) < self.trials:
            if not events or next_look <= events[0][0]:
                looks.append(self.measure("watching", self.progress.poll))
                seconds = looks[-1] * ROUND_TRIP
                next_look += seconds + pause_after(seconds)
                continue
            now, number, step = heapq.heappop(events)
            spent = self.disk.cost(lambda number=number, step=step: step(number))
            trips[number] += spent
            now += spent * ROUND_TRIP
            if step == self.begin:
                heapq.heappush(events, (now + TRAINING * (1 + number % 7 / 10), number, self.end))
            elif (following := next(waiting, None)) is not None:
                heapq.heappush(events, (now, following, self.begin))
        return now, trips, looks

    def measure(self, part: str, action: Callable[[], object]) -> float:
        """Round trips of an action; its function calls are added to those of a part."""
        profile = cProfile.Profile()
        trips = self.disk.cost(lambda: profile.runcall(action))
        self.calls[part] += sum(entry.callcount for entry in profile.getstats())
        return trips

    def begin(self, number: int) -> None:
        """What a worker does before it trains."""
        assert self.outcomes.read(number) is None and not self.outcomes.any_failed()
        self.outcomes.write(self.outcome(number))

    def end(self, number: int) -> None:
        """What a worker writes when its training ends: the run directory, which stands for all its files, and a log."""
        directory = self.root / f"rte-prefix-bundled-s{number % SEEDS}-{number:08x}"
        fingerprint = f"{number:064x}"
        directory.mkdir()
        config = (self.example / "config.yaml").read_text()
        for old, new in (("\nseed: 1\n", f"\nseed: {number % SEEDS}\n"), ("max_steps: 2", f"max_steps: {number + 4}")):
            assert old in config
            config = config.replace(old, new)
        (directory / "config.yaml").write_text(config)
        for name in ("status.json", "result.json"):
            content = json.loads((self.example / name).read_text()) | {"config_fingerprint": fingerprint}
            content |= {"seed": number % SEEDS} if "seed" in content else {}
            (directory / name).write_text(json.dumps(content))
        (self.outcomes.folder / f"{number}.log").touch()
        done = replace(self.outcome(number), state="done", directory=str(directory), fingerprint=fingerprint)
        self.outcomes.write(done)

    def outcome(self, number: int) -> Outcome:
        """A trial that has begun, on another machine."""
        words = f"trainer.max_steps={number // SEEDS} seed={number % SEEDS}"
        trial = TrialRecord(words, {"task": "rte"}, key=str(number // SEEDS))
        return Outcome(number, trial=trial, host="far", pid=number + 1)


def costs(root: Path, example: Path, trials: int, patch: pytest.MonkeyPatch) -> Costs:
    """Simulate a sweep, print its table, and write a report of its runs."""
    root.mkdir()
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with silent[0], silent[1]:
        simulation = Simulation(root, example, trials)
        with simulation.disk.counting(patch):
            seconds, trips, looks = simulation.run()
            assert len(simulation.progress.ended) == trials
            table = simulation.measure("table", simulation.progress.summary)
            table += simulation.measure("table", simulation.outcomes.clear)
            words = [str(root), "--out", str(root.parent / f"report-{trials}")]
            written = simulation.measure("report", lambda: report(words))
    return Costs(seconds, max(trips), len(looks), sum(looks), table, written, dict(simulation.calls))


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A finished run."""
    words = ["experiment=smoke", "method=prefix", "trainer.max_steps=2", f"run.root={tmp_path / 'example'}"]
    assert main(words) == 0
    return next((tmp_path / "example").glob("rte-*"))


def test_work_grows_with_the_number_of_trials_and_no_faster(
    tmp_path: Path, example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs(tmp_path / "imports", example, 8, monkeypatch)
    small, large = (costs(tmp_path / str(trials), example, trials, monkeypatch) for trials in (250, 1000))
    print(small, large, sep="\n")
    assert large.trial == pytest.approx(small.trial) and large.trial < 30  # a trial does not look at the others
    assert large.watching * ROUND_TRIP < large.seconds / 10  # the disk is left to the trials
    for name in ("watching", "table", "report"):
        assert getattr(large, name) < 5 * getattr(small, name), name
        assert large.calls[name] < 5 * small.calls[name], name
    assert large.table < 2 * 1000 and large.report < 20 * 1000
