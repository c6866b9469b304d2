"""Examples and token ids in Arrow files, by the library `datasets`: mapped into memory, made once, found by a key.

Imports `datasets` where something is stored, because that takes a second.
"""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt.config.schema import TaskConfig
from mmpt.data.columns import BATCH, values
from mmpt.data.files import Located
from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError
from mmpt.utils.files import cache_directory
from mmpt.utils.untrusted import one_line

if TYPE_CHECKING:
    from datasets import Dataset

FORMAT = 2  # raise it when the same rows come to be other examples
COLUMNS = ("id", "source", "target", "label", "group", "segments", "task")


class StoredExamples(Sequence[Example]):
    """Examples of one split in an Arrow file.

    Attributes:
        rows: Them, a row each.
        key: Hex sha256 of what they were made of.
        workers: Processes that tokenise them.
    """

    def __init__(self, rows: Dataset, key: str, workers: int = 1) -> None:
        """Wrap what :func:`store` gave."""
        self.rows, self.key, self.workers = rows, key, workers

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """One, or for a slice several as a list."""
        if isinstance(index, slice):
            return list(examples_of(self.rows[index]))
        return next(examples_of({name: [value] for name, value in self.rows[index].items()}))

    def __iter__(self) -> Iterator[Example]:
        """All, in batches."""
        for batch in self.rows.iter(BATCH):
            yield from examples_of(batch)

    def select(self, indices: np.ndarray) -> StoredExamples:
        """Some of them, in the order of ``indices`` (n,) int64."""
        key = hashlib.sha256(self.key.encode() + indices.tobytes()).hexdigest()
        return StoredExamples(self.rows.select(indices), key, self.workers)

    def after(self, text: str) -> StoredExamples:
        """The same with a text before each source."""
        key = hashlib.sha256(f"{self.key}{text}".encode()).hexdigest()

        def joined(sources: list[str]) -> dict[str, list[str]]:
            return {"source": [text + source for source in sources]}

        return StoredExamples(_mapped("data", self.rows, joined, key[:40], input_columns="source"), key, self.workers)


def examples_of(batch: dict[str, Any]) -> Iterator[Example]:
    """The examples of a batch of columns."""
    for name, source, target, label, group, segments, task in zip(*(batch[column] for column in COLUMNS), strict=True):
        yield Example(name, source, target, label, group, tuple(map(tuple, segments)), task)


def store(task: TaskConfig, key: str, read: Callable[[Task], Located], workers: int = 1) -> tuple[StoredExamples, int]:
    """Render rows into an Arrow file, or find it where that has been done before.

    Args:
        task: The task.
        key: What the rows come from; with the task, what is stored is named by it.
        read: Gives where each row was read, and the row.
        workers: Processes that tokenise the examples later.

    Returns:
        The examples, and how many rows ``task.missing=skip`` left out.

    Raises:
        DataError: As of :meth:`Task.example`; or the folder cannot be written.
    """
    import pyarrow as pa

    key = hashlib.sha256(f"{FORMAT}{task!r}{key}".encode()).hexdigest()
    text = pa.large_string()
    types = [text, text, text, pa.int32(), text, pa.list_(pa.list_(text)), text]
    schema, columns, made = pa.schema(zip(COLUMNS, types, strict=True)), attrgetter(*COLUMNS), Task(task)
    with one_line_problems("data", directory()) as place, uncollected():
        path = place / f"{key[:40]}.arrow"
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            if not path.exists():
                with pa.OSFile(str(draft), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
                    examples = made.checked(read(made))
                    while batch := list(islice(examples, BATCH)):
                        rows = ((None,) * len(COLUMNS) if example is None else columns(example) for example in batch)
                        arrays = map(pa.array, zip(*rows, strict=True), types)
                        writer.write_batch(pa.record_batch(list(arrays), schema=schema))
                draft.replace(path)
            stored = StoredExamples(library().Dataset.from_file(str(path)), key, workers)
        finally:
            draft.unlink(missing_ok=True)
    if task.missing != "skip":
        return stored, 0
    kept = np.fromiter((source is not None for (source,) in values(stored, "source")), dtype=bool)
    return stored.select(np.flatnonzero(kept)), int((~kept).sum())


def tokenise(
    examples: StoredExamples, key: str, encode: Callable[[Sequence[Example], int], list[dict[str, Any]]]
) -> tuple[Dataset, str]:
    """Token ids of stored examples, in an Arrow file beside theirs; and what names them.

    Args:
        examples: N examples, one or more.
        key: What the ids depend on besides the examples.
        encode: Examples and the number of the first -> their features, all with the same names.
    """
    datasets = library()
    features = datasets.Features({name: _type(value) for name, value in encode(examples[:1], 0)[0].items()})

    def encoded(batch: dict[str, Any], indices: list[int]) -> dict[str, list[Any]]:
        rows = encode(list(examples_of(batch)), indices[0])
        return {name: [row[name] for row in rows] for name in features}

    name = hashlib.sha256(f"{examples.key}{key}".encode()).hexdigest()[:40]
    options = {"with_indices": True, "batch_size": BATCH, "remove_columns": list(COLUMNS), "features": features}
    options |= {"num_proc": examples.workers if examples.workers > 1 else None, "desc": "tokens"}
    return _mapped("tokens", examples.rows, encoded, name, **options), name


def _mapped(what: str, rows: Dataset, function: Callable[..., Any], name: str, **options: Any) -> Dataset:
    """Rows made of batches of others, in a folder of Arrow files, or found there; options are those of ``map``."""
    with one_line_problems(what, directory()) as place, uncollected():
        if not (folder := place / name).exists():
            with TemporaryDirectory(dir=place) as draft:  # the library leaves its file there where the disk is full
                (made := Path(draft, name)).mkdir()
                rows.map(function, batched=True, new_fingerprint=name, cache_file_name=f"{made}/rows.arrow", **options)
                try:
                    made.rename(folder)
                except OSError:
                    if not folder.exists():  # else another process was faster
                        raise
        parts = [library().Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))]
        return library().concatenate_datasets(parts)


def directory() -> Path:
    """``datasets`` in the folder of :func:`mmpt.utils.files.cache_directory`."""
    return cache_directory() / "datasets"


def library() -> Any:
    """The library, quiet; with bars of its progress in a terminal alone."""
    import datasets

    datasets.logging.set_verbosity_error()
    (datasets.enable_progress_bars if sys.stderr.isatty() else datasets.disable_progress_bars)()
    return datasets


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from the objects that exist: it goes through all of them after every few batches."""
    frozen = gc.get_freeze_count() > 0  # by a sweep, for good
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


@contextmanager
def one_line_problems(what: str, place: Path) -> Iterator[Path]:
    """Turn what fails while something is written into one line.

    Raises:
        DataError: The folder is full or read-only.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        yield place
    except OSError as error:
        free = f", {shutil.disk_usage(place).free // 2**20} MiB free" if place.is_dir() else ""
        raise DataError(
            f"{what}: {place} cannot be written ({error.strerror or one_line(error)}{free}); free some, or set "
            "MMPT_CACHE=DIR"
        ) from error


def _type(value: Any) -> Any:
    """The column type of a value: a number, or lists of numbers."""
    import datasets

    if isinstance(value, list):
        return datasets.Sequence(_type(next((item for item in value if item != []), 0)))
    return datasets.Value("int32")
