"""Many processes on one results directory and one cache: nothing lost, nothing mixed, nobody stuck."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mmpt.cache.entry import Draft
from mmpt.cache.store import Store
from mmpt.config.compose import read_command_line
from mmpt.runs.failures import TrialRecord
from mmpt.runs.record import RunRecord
from mmpt.sweep.outcomes import Outcome, Outcomes
from mmpt.sweep.run import run_sweep
from mmpt.sweep.trial import Trial
from tests.runs.test_record import make_result, open_record
from tests.sweep.conftest import FEW, ROOT, command, lines, outcome, table

KEYS = [f"{number:064x}" for number in range(6)]
ROWS = 200


def forked(work: Callable[[], None]) -> int:
    """Start a process that does some work; returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return pid


def ended(pids: Sequence[int]) -> list[int]:
    """Exit codes, negative for a signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def fetch_all(store: Store, order: random.Random, rounds: int) -> None:
    """Fetch every entry many times, and check every byte."""

    def fill(draft: Draft, number: int) -> None:
        for row in range(ROWS):
            draft.put("states", row, memoryview(bytes([number]) * 64))

    for _ in range(rounds):
        for number in order.sample(range(len(KEYS)), len(KEYS)):
            mapped = store.fetch(
                KEYS[number],
                {"states": ("F32", (ROWS, 16))},
                lambda draft, number=number: fill(draft, number),  # type: ignore[misc]
                {"about": number},
                lambda text: None,
            )
            first = mapped.spans["states"].first
            assert mapped.buffer[first : first + 64 * ROWS] == bytes([number]) * 64 * ROWS


def test_eight_processes_on_one_cache_with_kills_and_prunes(tmp_path: Path) -> None:
    store = Store(tmp_path, max_gb=1)

    def prune() -> None:
        for _ in range(60):
            Store(tmp_path, max_gb=0).prune(0)
            time.sleep(0.005)

    def use(seed: int) -> None:
        fetch_all(store, random.Random(seed), rounds=12)

    workers = [forked(lambda seed=seed: use(seed)) for seed in range(8)]  # type: ignore[misc]
    pruner = forked(prune)
    for _ in range(5):  # and some that die with their locks held
        victim = forked(lambda: fetch_all(store, random.Random(99), rounds=1000))
        time.sleep(0.05)
        os.kill(victim, signal.SIGKILL)
        assert ended([victim]) == [-signal.SIGKILL]
    assert ended([*workers, pruner]) == [0] * 9
    fetch_all(store, random.Random(0), rounds=1)
    assert all(store.verify(key) is None for key in KEYS)
    store.prune(10**9)
    assert {path.suffix for path in tmp_path.iterdir() if path.name != ".lock"} == {".safetensors", ".json"}


def hold(directory: Path, fork: bool) -> tuple[int, int]:
    """A process that holds a run directory, and maybe a child of its own; returns their pids."""
    read, write = os.pipe()

    def work() -> None:
        RunRecord.open(directory, resolved={}, fingerprint="f")
        child = os.fork() if fork else os.getpid()
        if child:
            os.write(write, f"{child}\n".encode())
        time.sleep(60)

    pid = forked(work)
    return pid, int(os.read(read, 32))


def test_a_killed_holder_frees_the_lock_though_a_worker_of_its_lives(tmp_path: Path) -> None:
    pid, worker = hold(tmp_path / "run", fork=True)
    os.kill(pid, signal.SIGKILL)
    ended([pid])
    try:
        os.kill(worker, 0)  # a loader of data, say, that hasn't noticed yet
        record = RunRecord.open(tmp_path / "run", resolved={}, fingerprint="f")
        assert record.state == "resume"
        record.close()
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("host", [os.uname().nodename, "elsewhere"], ids=["here", "elsewhere"])
@pytest.mark.parametrize("pid", [2**22 - 1, os.getpid(), 1], ids=["dead", "mine", "another"])
def test_files_of_a_lock_that_nobody_holds_lock_nothing(host: str, pid: int, tmp_path: Path) -> None:
    """Left by a dead process, by one of another machine, or by one whose number another process has now."""
    RunRecord.open(tmp_path, resolved={}, fingerprint="f").close()
    status = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    (tmp_path / "status.json").write_text(json.dumps({**status, "host": host, "pid": pid}), encoding="utf-8")
    (tmp_path / ".lock").write_text(f"{pid}\n", encoding="ascii")
    record = RunRecord.open(tmp_path, resolved={}, fingerprint="f")
    assert record.state == "resume"
    record.close()


def test_a_trial_whose_run_another_process_works_on_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmpt.sweep.progress.POLL_SECONDS", 0.01)
    launches = []

    open_record(tmp_path / "run").finish(make_result())

    def launch(trial: Trial) -> None:
        outcomes = Outcomes(trial.folder)
        ended = {outcome.number for outcome in outcomes.news(set()) if outcome.ended}
        launches.append(sorted(ended))
        for number in {0, 1} - ended:
            state = "busy" if number == 0 and len(launches) < 3 else "done"
            record = TrialRecord(f"seed={number}")
            outcomes.write(Outcome(number, trial=record))
            outcomes.write(Outcome(number, state, record, directory=str(tmp_path / "run")))

    line = read_command_line(["-m", "seed=0,1", f"run.root={tmp_path}"], ROOT / "conf")
    assert run_sweep(line, ROOT / "conf", launch) == 0
    assert launches == [[], [1], [1]]
    said = capsys.readouterr().out
    assert said.count("trial 1/2  seed=0: another process works on this run; the trial is tried again later") == 1
    assert "2 trials done" in said and len(table(said)) == 3


def test_sweeps_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = {Outcomes.create(tmp_path).folder for _ in range(3)}
    assert len(folders) == 3


# ---------------------------------------------------------------------- real runs, eight at a time

RUN = [*FEW, "method=prefix", "data.limit_validation=32", "data.limit_test=32", "logger=none"]


def start(words: Sequence[str], cache: Path, output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        environment = {**os.environ, "MMPT_CACHE": str(cache)}
        return subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=output.parent)


def single(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *RUN, *words]


def steps(directory: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_processes_at_the_same_run(tmp_path: Path) -> None:
    """One trains; the others are refused in one line, or show its result; two are killed on the way."""
    assert start(single(f"run.dir={tmp_path}/alone"), tmp_path / "cache", tmp_path / "alone.log").wait() == 0
    outputs = [tmp_path / f"{number}.log" for number in range(8)]
    started = [start(single(f"run.dir={tmp_path}/run"), tmp_path / "cache", output) for output in outputs]
    while not (tmp_path / "run" / "status.json").exists():
        time.sleep(0.05)
    owner = json.loads((tmp_path / "run" / "status.json").read_text())["pid"]
    with contextlib.suppress(ProcessLookupError):  # it may be done
        os.kill(owner, signal.SIGKILL)
    codes = [process.wait() for process in started]
    for code, output in zip(codes, outputs, strict=True):
        text = output.read_text()
        assert code in (0, 2, -signal.SIGKILL), text
        assert code != 2 or ("is in use by pid" in text and "Traceback" not in text), text
    again = start(single(f"run.dir={tmp_path}/run"), tmp_path / "cache", tmp_path / "again.log")
    assert again.wait() == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_runs_in_one_directory_with_one_cache_read_and_pruned_meanwhile(tmp_path: Path) -> None:
    root, cache = tmp_path / "runs", tmp_path / "cache"
    root.mkdir()
    started = [start(single(f"run.root={root}", f"seed={seed}"), cache, tmp_path / f"{seed}.log") for seed in range(8)]
    reports = 0
    while any(process.poll() is None for process in started):
        subprocess.run([sys.executable, "-m", "mmpt.cache", "prune", "--max-gb", "0"], env=pruning(cache), check=True)
        told = subprocess.run(
            [sys.executable, "-m", "mmpt.report", str(root), "--out", str(tmp_path / "report")],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        said = told.stdout + told.stderr
        assert "Traceback" not in said and "damaged" not in said and "killed" not in said, said
        reports += 1
    assert [process.wait() for process in started] == [0] * 8, (tmp_path / "0.log").read_text()
    runs = sorted(root.glob("rte-*"))
    assert len(runs) == 8 and reports > 0
    assert {json.loads((run / "result.json").read_text())["seed"] for run in runs} == set(range(8))
    for run in runs:
        assert steps(run) == sorted(steps(run))
    for seed in (0, 5):
        (run,) = root.glob(f"rte-*-s{seed}-*")
        alone = tmp_path / f"alone{seed}"
        assert start(single(f"run.dir={alone}", f"seed={seed}"), tmp_path / "other", tmp_path / "log").wait() == 0
        assert outcome(alone) == outcome(run)


def pruning(cache: Path) -> dict[str, str]:
    return {**os.environ, "MMPT_CACHE": str(cache), "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_sweep_started_twice_at_once_trains_each_trial_once(tmp_path: Path) -> None:
    root, cache = tmp_path / "runs", tmp_path / "cache"
    root.mkdir()
    words = ["method=prefix", "seed=1,2,3,4", "logger=none"]
    orders = [words, [word.replace("1,2,3,4", "4,3,2,1") for word in words]]  # each would wait for the other
    started = [start(command(root, *order), cache, tmp_path / f"{number}.log") for number, order in enumerate(orders)]
    assert [process.wait() for process in started] == [0, 0]
    said = [(tmp_path / f"{number}.log").read_text() for number in range(2)]
    trained = [line for text in said for line in lines(text) if "its turn comes later" not in line]
    assert len(trained) == 8
    assert sum("done before" not in line for line in trained) == 4, said
    assert table(said[0]) == table(said[1])
    assert len(list(root.glob("rte-*/result.json"))) == 4
    for run in root.glob("rte-*"):
        assert steps(run) == sorted(steps(run))
        assert not list(run.glob(".*.tmp"))
