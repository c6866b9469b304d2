"""Where examples come from: the bundled miniature, a local directory, the hub. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmpt.config.schema import DataConfig, HubConfig
from mmpt.data.files import listing, read_rows
from mmpt.data.splits import SPLITS, Examples, check, cut, fingerprint
from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError, nearest
from mmpt.utils.untrusted import one_line

OFFLINE = "data=bundled and data=local data.dir=DIR work offline"


@dataclass(frozen=True)
class Splits:
    """The three splits of a run.

    Attributes:
        train: Training examples.
        validation: Examples that select the checkpoint.
        test: Examples of the reported score.
        fingerprint: Hex sha256 over the rendered text of all splits.
        bundled: Whether this is the bundled synthetic miniature.
        origin: Where they come from, for people.
        notes: What weakens a score, one line each.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    fingerprint: str
    bundled: bool
    origin: str
    notes: tuple[str, ...]


def load_splits(task: Task, data: DataConfig, seed: int = 0) -> Splits:
    """Read, render, cut and check a task's data.

    The three splits of the bundled miniature and of own data that names all three are used as they are.

    Args:
        task: The task.
        data: Source and cut.
        seed: The run's seed. Splits do not depend on it: the seeds of a study see the same examples.

    Raises:
        DataError: Anything is missing, malformed, unlabelled, empty or of one class.
    """
    del seed
    loader = {"bundled": _bundled, "local": _local, "hub": _hub}[data.name]
    given, as_given, origin = loader(task, data)
    splits = cut(given, data, as_given)
    notes = check(task, splits, origin)
    if task.skipped:
        notes = (f"{task.skipped} rows with a missing value were left out (task.missing=skip)", *notes)
    if as_given and data.split == "held_out":
        notes = (f"{origin} has all three splits: used as they are, data.split has no effect", *notes)
    return Splits(**splits, fingerprint=fingerprint(splits), bundled=data.name == "bundled", origin=origin, notes=notes)


Loaded = tuple[dict[str, Examples], bool, str]


def _bundled(task: Task, data: DataConfig) -> Loaded:
    from mmpt.bundled.tasks import records  # makes the miniature, only where it is asked for

    origin = "bundled miniature (synthetic)"
    rows = records(task.name)
    given = {
        name: tuple(task.examples((f"bundled {task.name} {name}:{number}", row) for number, row in enumerate(part, 1)))
        for name, part in rows.items()
    }
    return given, True, origin


def _local(task: Task, data: DataConfig) -> Loaded:
    try:
        directory = _directory(task, data)
    except (OSError, RuntimeError) as error:  # too long a name, no permission, ~ of an unknown user
        raise DataError(f"data.dir={data.dir} cannot be read ({one_line(error)}); give another directory") from error
    files = task.config.files
    as_given = data.split == "official" or all(name in files for name in SPLITS)
    names = _needed(files, as_given, "task.files")
    given = {name: _read(task, directory / files[name], files[name]) for name in names}
    return given, as_given, f"local {directory}"


def _read(task: Task, path: Path, name: str) -> Examples:
    name = f"{path.parent.name}/{path.name}" if path.parent.name else name
    return tuple(task.examples(read_rows(path, name, task.csv, task.is_row)))


def _directory(task: Task, data: DataConfig) -> Path:
    """The task's folder below ``data.dir``, or ``data.dir`` itself where the task's files lie in it."""
    if data.dir is None:
        raise DataError("data=local needs data.dir=DIR")
    files = task.config.files
    _check_names(files)
    root = Path(data.dir).expanduser()
    if not root.exists():
        beside = sorted(entry.name for entry in root.parent.iterdir()) if root.parent.is_dir() else []
        raise DataError(f"data.dir={data.dir}: no such directory{nearest(root.name, beside)}")
    if not root.is_dir():
        raise DataError(f"data.dir={data.dir} is a file; give the directory it lies in ({root.parent})")
    folder = task.config.directory
    if folder is not None and (root / folder).is_dir():
        return root / folder
    if any((root / name).exists() for name in files.values()):
        return root
    wanted = f"neither {folder}/ nor {', '.join(files.values())}" if folder else f"no {', '.join(files.values())}"
    names = [entry.name for entry in root.iterdir()]
    hint = nearest(folder or next(iter(files.values())), names)
    raise DataError(f"data.dir={data.dir} has {wanted}; it has: {listing(root)}{hint} (task.files names the files)")


def _check_names(files: Mapping[str, str]) -> None:
    if not files:
        raise DataError("task.files is empty; name the files, e.g. task.files.train=train.jsonl")
    for name in files:
        if name not in SPLITS:
            raise DataError(f'task.files has a split "{name}"; allowed: {", ".join(SPLITS)}{nearest(name, SPLITS)}')


def _needed(files: Mapping[str, str], as_given: bool, key: str) -> tuple[str, ...]:
    """Which splits are read: three as given; else train and what becomes the test split."""
    test = ("test",) if "test" in files else ("validation",)
    needed = SPLITS if as_given else ("train", *test)
    missing = [name for name in needed if name not in files]
    if missing:
        has = ", ".join(f"{name}={file}" for name, file in files.items())
        cure = "add it, or use data.split=held_out" if as_given else "add it"
        raise DataError(f"{key} names no {' and no '.join(missing)} file (it has {has}); {cure}")
    return needed


def _hub(task: Task, data: DataConfig) -> Loaded:
    hub = task.config.hub
    if hub is None:
        raise DataError(f'task "{task.name}" names no hub dataset (task.hub); {OFFLINE}')
    as_given = data.split == "official"
    names = _needed(hub.files, as_given, "task.hub.files")
    paths = {name: _download(hub, hub.files[name]) for name in names}
    given = {
        name: tuple(task.examples(read_rows(path, hub.files[name], task.csv, task.is_row)))
        for name, path in paths.items()
    }
    return given, as_given, f"hub {hub.repo}@{hub.revision[:12]}"


def _download(hub: HubConfig, file: str) -> Path:
    """One file at the pinned revision, from the hub's cache where it is there already."""
    from mmpt.utils.hub import fetch, one_line_errors

    where = f"{hub.repo}@{hub.revision}/{file}"
    with one_line_errors(where, DataError, check="task.hub", instead=f"it isn't cached; {OFFLINE}"):
        return fetch(hub.repo, file, repo_type="dataset", revision=hub.revision)
