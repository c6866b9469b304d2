"""The run directory: what one run writes, when it counts as done, and who may write to it.

docs/run_directory.md describes every file. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml

from mmpt.errors import RunError
from mmpt.runs.environment import environment
from mmpt.runs.result import FORMAT, Result
from mmpt.runs.status import STATUS, is_busy, process_alive, read_status, write_status
from mmpt.utils.files import dumps, link_outside, newer_format, read_json, write_json, write_text, writing
from mmpt.utils.locks import acquire_lock, release_lock
from mmpt.utils.secrets import redact
from mmpt.utils.untrusted import LARGEST, parse_yaml, read_text

__all__ = ["RunRecord", "State", "is_busy", "process_alive", "read_result", "read_status"]

State = Literal["new", "done", "resume"]

# All that a run may write. `overwrite` deletes these and nothing else.
FILES = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "result.json",
    "predictions.jsonl",
    "predictions_validation.jsonl",
    STATUS,  # last: until then the directory is still known as a run's
)
FOLDERS = ("adapter", "checkpoints", "wandb", "tensorboard", "trackio", "csv")
_LEFTOVER = re.compile(r"\.lock|\..+\.\d+\.tmp")  # of a process that was killed in its first steps


def refuse_file_of_a_run(path: Path, option: str) -> None:
    """Do not let a result replace what a run, or a saved adapter, consists of.

    RunError: ``path``, which is the value of ``option``, is such a file.
    """
    path = Path(os.path.realpath(path.expanduser()))
    for folder in path.parents:
        of_run = (folder / STATUS).is_file() and path.relative_to(folder).parts[0] in (*FILES, *FOLDERS)
        of_adapter = (folder / "adapter.json").is_file() and path.is_file() and path.parent == folder
        if of_run or of_adapter:
            raise RunError(f"{option} {path} would replace a file of the run in {folder}; name another file")


class RunRecord:
    """One run directory, locked while this process may write to it.

    The directory is a run's from the moment it holds ``status.json``, and a run is done once that file says so.
    """

    def __init__(self, directory: Path, fingerprint: str, lock: int) -> None:
        """Hold an already locked directory, by the file descriptor of its lock; use :meth:`open`."""
        self.directory = directory  # absolute
        self.fingerprint = fingerprint  # of what the run's result depends on
        self.adapter_dir = directory / "adapter"
        self.checkpoints_dir = directory / "checkpoints"  # until the run is done
        self.metrics_path = directory / "metrics.jsonl"  # one JSON object a line, in order of steps
        self.state: State = "new"  # what the directory held on opening: new, done (nothing to do), or resume
        self._lock: int | None = lock
        self._config: Mapping[str, Any] | None = None
        self._started = time.time()

    @classmethod
    def open(cls, directory: Path, fingerprint: str, resolved: dict[str, Any], overwrite: bool = False) -> RunRecord:
        """Create the run directory, with its parents, or continue with the one that exists.

        ``fingerprint`` is that of :func:`mmpt.training.identity.identify`; ``resolved``, the whole configuration in
        plain values, is written to ``config.yaml``; ``overwrite`` deletes what an earlier run left there. RunError:
        the directory is another run's or no run's, is in use, cannot be written, or is damaged.
        """
        directory = directory.expanduser().absolute()
        _require_run_or_empty(directory)
        lock = acquire_lock(directory / ".lock", f"run directory {directory}", "name another run.dir")
        record = cls(directory, fingerprint, lock)
        try:
            record._begin(resolved, overwrite)
        except BaseException:
            record.close()
            raise
        return record

    def _begin(self, resolved: dict[str, Any], overwrite: bool) -> None:
        """Determine the state under the lock, and write what a run writes first."""
        if overwrite:
            self._clear()
        self.state, self._config = self._read_state(), resolved
        if self.state == "done":
            self.close()
            return
        self._write_status("running")  # first: from now on the directory is known as a run's
        write_text(self.directory / "config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        write_json(self.directory / "environment.json", environment())
        if self.state == "resume":
            self._drop_partial_line()

    def _read_state(self) -> State:
        if not (self.directory / STATUS).exists():
            return "new"
        status = read_json(self.directory / STATUS)
        if newer := newer_format(status, FORMAT):
            raise RunError(f"run directory {self.directory} {newer}, or name another run.dir")
        theirs = status.get("config_fingerprint")
        if theirs != self.fingerprint:
            raise RunError(
                f"run directory {self.directory} belongs to another configuration (compare its config.yaml), to other "
                "data, or to another content of a local model or of your own method, metric or loss file (fingerprint "
                f"{str(theirs)[:12]}, this one has {self.fingerprint[:12]}); name another run.dir, or set "
                "run.overwrite=true to delete the old run"
            )
        if status.get("status") != "done":
            return "resume"
        read_result(self.directory)
        return "done"

    def _clear(self) -> None:
        with writing(self.directory):
            for name in FOLDERS:
                if (self.directory / name).exists():
                    shutil.rmtree(self.directory / name)
            for name in FILES:
                (self.directory / name).unlink(missing_ok=True)

    def log(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Append a line to ``metrics.jsonl``; a number that is not finite is written as null."""
        line = dumps({"step": step, "time": round(time.time(), 3), **values})
        with writing(self.metrics_path), self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def metrics_size(self) -> int:
        """Bytes of ``metrics.jsonl`` so far."""
        return self.metrics_path.stat().st_size if self.metrics_path.exists() else 0

    def truncate_metrics(self, size: int) -> bool:
        """Drop the metrics beyond the :meth:`metrics_size` of a checkpoint, before training resumes from it.

        Returns:
            Whether the file is that long: another system may have lost lines.
        """
        present = self.metrics_size()
        if present > size:
            with writing(self.metrics_path):
                os.truncate(self.metrics_path, size)
        return present >= size

    def _drop_partial_line(self) -> None:
        """Cut off a line that a crash cut short."""
        if self.metrics_path.exists():
            with writing(self.metrics_path), self.metrics_path.open("rb") as file:
                start = file.seek(max(0, self.metrics_size() - LARGEST))
                end = start + file.read().rfind(b"\n") + 1
            self.truncate_metrics(end)

    def write_predictions(self, split: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write one JSON object an example: ``test`` to predictions.jsonl, others to predictions_SPLIT.jsonl."""
        path = self.directory / ("predictions.jsonl" if split == "test" else f"predictions_{split}.jsonl")
        write_text(path, "".join(dumps(row) + "\n" for row in rows))
        return path

    def finish(self, result: Result) -> Result:
        """Write the result, mark the run done, and release the lock.

        Returns:
            The result as written, with fingerprint, versions and configuration.

        Raises:
            RunError: The result is not complete (all problems in one line), or cannot be written.
        """
        added = {"versions": environment()["versions"], "config": self._config, "absent": ()}
        complete = replace(result, config_fingerprint=self.fingerprint, **added)
        if problems := complete.problems():
            raise RunError(f"the result of {self.directory} is not complete: {'; '.join(problems)}")
        write_json(self.directory / "result.json", complete.to_dict())
        self._write_status("done")
        self.close()
        return complete

    def fail(self, error: BaseException) -> None:
        """Record the error that ended the run, and release the lock. Never raises, since that error is raised."""
        trace = redact("".join(traceback.format_exception(error)))
        self._end("failed", error={"type": type(error).__name__, "message": redact(str(error)), "trace": trace})

    def interrupt(self) -> None:
        """Record that a signal stopped the run, and release the lock. Never raises."""
        self._end("interrupted")

    def _end(self, status: str, **more: Any) -> None:
        with contextlib.suppress(RunError):
            self._write_status(status, **more)
        self.close()

    def close(self) -> None:
        """Release the lock; the files stay. Safe to call twice."""
        if self._lock is not None:
            release_lock(self._lock)
            self._lock = None

    def _write_status(self, status: str, **more: Any) -> None:
        write_status(self.directory, status, self.fingerprint, self._started, **more)


def read_result(directory: Path) -> Result:
    """Read the result of a run that is done, with the configuration beside it.

    Raises:
        RunError: ``result.json`` is missing, damaged or of a newer format.
    """
    directory = directory.expanduser()
    content = read_json(directory / "result.json")
    if newer := newer_format(content, FORMAT):
        raise RunError(f"{directory / 'result.json'} {newer}, or name another run.dir")
    with contextlib.suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
        content = {**content, "config": parse_yaml(read_text(directory / "config.yaml"))}
    return Result.from_dict(content)


def _require_run_or_empty(directory: Path) -> None:
    """Create a directory; refuse one with files that are no run's, or with a link that leads out of it."""
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        files = {entry.name for entry in directory.iterdir() if not _LEFTOVER.fullmatch(entry.name)}
        is_run = (directory / STATUS).exists()  # after listing: another process may have begun one meanwhile
    if files and not is_run:
        raise RunError(
            f"run directory {directory} holds files but no run ({', '.join(sorted(files)[:3])}); "
            "name an empty or new directory with run.dir=DIR"
        )
    if (link := link_outside(directory)) is not None:
        raise RunError(
            f"{link} is a symbolic link out of the run directory, and a run writes only inside; replace it by "
            "a copy, or name another run.dir"
        )
