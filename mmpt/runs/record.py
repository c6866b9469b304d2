"""The run directory: what one run writes, when it counts as done, and who may write to it.

docs/run_directory.md describes every file. Nothing here imports torch.
"""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import platform
import re
import shutil
import time
import traceback
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from mmpt.utils.secrets import redact
from mmpt.errors import RunError
from mmpt.utils.process import is_alive
from mmpt.runs.environment import environment
from mmpt.utils.files import dumps, link_outside, newer_format, read_json, write_json, write_text, writing
from mmpt.runs.lock import give_lock_back, take_lock
from mmpt.utils.untrusted import LARGEST, parse_json, read_text

State = Literal["new", "done", "resume"]

# All that a run may write. `overwrite` deletes these and nothing else.
FILES = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "result.json",
    "predictions.jsonl",
    "predictions_validation.jsonl",
    "status.json",  # last: until then the directory is still known as a run's
)
FOLDERS = ("adapter", "checkpoints", "wandb", "tensorboard", "trackio", "csv")
FORMAT = 1  # of a run directory and of a result; raise it when a reader of today would misread one
_UTC = "%Y-%m-%dT%H:%M:%SZ"
LEFTOVER = re.compile(r"\.lock|\..+\.\d+\.tmp")  # what a process killed at its first steps leaves behind


class RunRecord:
    """One run directory, locked while this process may write to it.

    The directory is a run's from the moment it holds ``status.json``, and a run is done once that file says so.
    """

    def __init__(self, directory: Path, fingerprint: str, lock: int) -> None:
        """Hold an already locked directory; use :meth:`open`.

        Args:
            directory: The run directory, absolute.
            fingerprint: What the run's result depends on, as a hash of its configuration.
            lock: File descriptor that holds the lock.
        """
        self.directory = directory
        self.fingerprint = fingerprint
        self._lock: int | None = lock
        self._state: State = "new"
        self._started = time.time()

    @classmethod
    def open(cls, directory: Path, *, resolved: dict[str, Any], fingerprint: str, overwrite: bool = False) -> RunRecord:
        """Create the run directory, or take up the one that is there.

        Args:
            directory: Where the run lies; created with its parents where missing.
            resolved: The whole configuration, plain values only; written to ``config.yaml``.
            fingerprint: ``mmpt.config.fingerprint.run_fingerprint`` of the configuration.
            overwrite: Delete what an earlier run left in the directory, and start anew.

        Returns:
            The record. Its ``state`` says whether there is nothing yet, a finished result, or a run to go on with.

        Raises:
            RunError: The directory is another run's or no run's, is in use, can't be written, or is damaged.
        """
        directory = directory.expanduser().absolute()
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            found = {entry.name for entry in directory.iterdir() if not LEFTOVER.fullmatch(entry.name)}
            is_run = (directory / "status.json").exists()  # now: another process may have begun one meanwhile
        if found and not is_run:
            raise RunError(
                f"run directory {directory} holds files but no run ({', '.join(sorted(found)[:3])}); "
                "name an empty or new directory with run.dir=DIR"
            )
        if (link := link_outside(directory)) is not None:
            raise RunError(
                f"{link} is a symbolic link out of the run directory, and a run writes only inside; replace it by "
                "a copy, or name another run.dir"
            )
        record = cls(directory, fingerprint, take_lock(directory))
        try:
            record._begin(resolved, overwrite)
        except BaseException:
            record.close()
            raise
        return record

    def _begin(self, resolved: dict[str, Any], overwrite: bool) -> None:
        """Settle the state under the lock, and write what a run writes first."""
        if overwrite:
            self._clear()
        self._state = self._find_state()
        if self._state == "done":
            self.close()
            return
        self._write_status("running")  # first: from now on the directory is known as a run's
        write_text(self.directory / "config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        write_json(self.directory / "environment.json", environment())
        if self._state == "resume":
            self._drop_half_a_line()

    def _find_state(self) -> State:
        if not (self.directory / "status.json").exists():
            return "new"
        status = read_json(self.directory / "status.json")
        if newer := newer_format(status, FORMAT):
            raise RunError(f"run directory {self.directory} {newer}, or name another run.dir")
        found = status.get("config_fingerprint")
        if found != self.fingerprint:
            raise RunError(
                f"run directory {self.directory} belongs to another configuration (fingerprint {str(found)[:12]}, "
                f"this one has {self.fingerprint[:12]}; compare its config.yaml); name another run.dir, or "
                "run.overwrite=true to delete the old run"
            )
        if status.get("status") != "done":
            return "resume"
        self.result()
        return "done"

    def _clear(self) -> None:
        with writing(self.directory):
            for name in FOLDERS:
                if (self.directory / name).exists():
                    shutil.rmtree(self.directory / name)
            for name in FILES:
                (self.directory / name).unlink(missing_ok=True)

    @property
    def state(self) -> State:
        """What was found on opening: ``new``, ``done`` (nothing to do), or ``resume``."""
        return self._state

    @property
    def adapter_dir(self) -> Path:
        """Where the trained adapter goes."""
        return self.directory / "adapter"

    @property
    def checkpoints_dir(self) -> Path:
        """Where training state goes until the run is done."""
        return self.directory / "checkpoints"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line, in order of steps."""
        return self.directory / "metrics.jsonl"

    @property
    def result_path(self) -> Path:
        """The run's result; there only once the run is done."""
        return self.directory / "result.json"

    def log(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Append a line to ``metrics.jsonl``.

        Args:
            step: Optimizer steps so far.
            values: Any names; a number that is not finite is written as null.

        Raises:
            RunError: The line can't be written.
        """
        line = dumps({"step": step, "time": round(time.time(), 3), **values})
        with writing(self.metrics_path), self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def metrics_size(self) -> int:
        """Bytes of ``metrics.jsonl`` so far."""
        return self.metrics_path.stat().st_size if self.metrics_path.exists() else 0

    def truncate_metrics(self, size: int) -> bool:
        """Drop the metrics beyond those of a checkpoint, before training goes on from there.

        Args:
            size: What :meth:`metrics_size` was then.

        Returns:
            Whether all of them are there: another system may have lost some.

        Raises:
            RunError: The file can't be written.
        """
        there = self.metrics_size()
        if there > size:
            with writing(self.metrics_path):
                os.truncate(self.metrics_path, size)
        return there >= size

    def _drop_half_a_line(self) -> None:
        """Cut off a line that a crash cut short."""
        if self.metrics_path.exists():
            with writing(self.metrics_path), self.metrics_path.open("rb") as file:
                begins = file.seek(max(0, self.metrics_size() - LARGEST))
                kept = begins + file.read().rfind(b"\n") + 1
            self.truncate_metrics(kept)

    def write_predictions(self, split: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write one JSON object an example.

        Args:
            split: ``test`` goes to ``predictions.jsonl``, ``validation`` to ``predictions_validation.jsonl``.
            rows: One mapping an example, plain values only.

        Returns:
            The file.

        Raises:
            RunError: The file can't be written.
        """
        path = self.directory / ("predictions.jsonl" if split == "test" else f"predictions_{split}.jsonl")
        write_text(path, "".join(dumps(row) + "\n" for row in rows))
        return path

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write the result and mark the run done; the lock is given back.

        Args:
            result: All that ``result.schema.json`` asks for. ``status``, ``config_fingerprint`` and ``versions`` are
                filled in.

        Returns:
            The result as written.

        Raises:
            RunError: The result does not fit the schema (all findings in one line), or can't be written.
        """
        complete = {
            **result,
            "format": FORMAT,
            "status": "done",
            "config_fingerprint": self.fingerprint,
            "versions": environment()["versions"],
        }
        complete = json.loads(dumps(complete))
        problems = schema_problems(complete)
        if problems:
            raise RunError(f"result of {self.directory} does not fit result.schema.json: {'; '.join(problems)}")
        write_json(self.result_path, complete)
        self._write_status("done")
        self.close()
        return complete

    def fail(self, error: BaseException) -> None:
        """Note the error that ended the run; the lock is given back. Never raises: that error is on its way."""
        trace = redact("".join(traceback.format_exception(error)))
        told = {"type": type(error).__name__, "message": redact(str(error)), "trace": trace}
        with contextlib.suppress(RunError):
            self._write_status("failed", error=told)
        self.close()

    def interrupt(self) -> None:
        """Note that a signal stopped the run; the lock is given back. Never raises."""
        with contextlib.suppress(RunError):
            self._write_status("interrupted")
        self.close()

    def result(self) -> dict[str, Any]:
        """Read the result of a run that is done.

        Returns:
            What ``finish`` wrote.

        Raises:
            RunError: ``result.json`` is missing or damaged.
        """
        return read_result(self.directory)

    def close(self) -> None:
        """Give the lock back; the files stay. Safe to call twice."""
        if self._lock is not None:
            give_lock_back(self._lock)
            self._lock = None

    def _write_status(self, status: str, **more: Any) -> None:
        now = time.time()
        content = {"format": FORMAT, "status": status, "config_fingerprint": self.fingerprint, "pid": os.getpid()}
        content |= {"host": platform.node(), "started": _utc(self._started), "updated": _utc(now), **more}
        write_json(self.directory / "status.json", content)


def read_result(directory: Path) -> dict[str, Any]:
    """Read the result of a run that is done.

    Raises:
        RunError: ``result.json`` is missing, damaged or of a newer format.
    """
    result = read_json(directory.expanduser() / "result.json")
    if newer := newer_format(result, FORMAT):
        raise RunError(f"{directory / 'result.json'} {newer}, or name another run.dir")
    return result


def read_status(directory: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read what a directory says of a run; None where it holds none, or another one."""
    try:
        status = parse_json(read_text(directory.expanduser() / "status.json"))
        told = isinstance(status["status"], str) and isinstance(status.get("error", {}), Mapping)
        return status if status["config_fingerprint"] == fingerprint and told else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def lives(status: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a ``status.json`` still lives, as far as this machine can tell."""
    try:
        since: float | None = calendar.timegm(time.strptime(str(status.get("started")), _UTC))
    except ValueError:
        since = None
    return is_alive(status.get("host"), status.get("pid"), since) is not False


def is_busy(directory: Path) -> bool:
    """Whether a process is at the run in a directory, as its status says; no lock is touched."""
    try:
        status = parse_json(read_text(directory / "status.json"))
        return status["status"] == "running" and lives(status)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def schema_problems(result: Mapping[str, Any]) -> list[str]:
    """Compare a result with ``result.schema.json``.

    Args:
        result: Plain JSON values.

    Returns:
        One line a finding, each with the place; empty where the result is right.
    """
    from jsonschema import Draft202012Validator

    text = resources.files("mmpt.runs").joinpath("result.schema.json").read_text(encoding="utf-8")
    errors = Draft202012Validator(json.loads(text)).iter_errors(result)
    return [f"{'.'.join(map(str, error.absolute_path)) or 'result'}: {error.message}" for error in errors]


def _utc(seconds: float) -> str:
    return time.strftime(_UTC, time.gmtime(seconds))
