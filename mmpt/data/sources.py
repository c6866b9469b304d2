"""Where examples come from: the bundled miniature, local files, the hub. Imports no torch."""

from __future__ import annotations

import glob
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.config.schema import DataConfig, HubConfig
from mmpt.data.files import Located, as_written, listing, narrow_columns, read_rows
from mmpt.data.splits import SPLITS, Examples, check, cut, fingerprint, with_shots
from mmpt.data.stored import library, store
from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError, nearest
from mmpt.utils.hub import COMMIT, TIMEOUT_S, fetch, one_line_errors
from mmpt.utils.untrusted import one_line

OFFLINE = "data=bundled and data=local data.dir=DIR work offline"
FETCHED = "HF_HUB_OFFLINE=1 reads what was fetched before"
SMALL = 2**20  # bytes of a split that is read at once in less time than `datasets` takes to be imported


@dataclass(frozen=True)
class Splits:
    """The three splits of a run."""

    train: Sequence[Example]
    validation: Sequence[Example]  # they select the checkpoint
    test: Sequence[Example]  # of the reported score
    fingerprint: str  # hex sha256 over the rendered text of all splits
    bundled: bool  # whether this is the bundled synthetic miniature
    origin: str  # where they come from, for people
    notes: tuple[str, ...]  # what weakens a score, one line each
    task: Task = field(compare=False)  # as it was read: its template begins with the examples of task.shots


def load_splits(task: Task, data: DataConfig, seed: int = 0) -> Splits:
    """Read, render, cut and check a task's data.

    The three splits of the bundled miniature and of own data that names all three are used as they are.

    Args:
        task: The task.
        data: Source and cut.
        seed: Of the examples of ``task.shots``. Without them the seeds of a study see the same splits.

    Raises:
        DataError: Anything is missing, malformed, unlabelled, empty or of one class.
    """
    loader = {"bundled": _bundled, "local": _local, "hub": _hub}[data.name]
    given, as_given, origin = loader(task, data)
    splits = cut({name: examples for name, (examples, _) in given.items()}, data, as_given)
    if task.config.shots:
        task, splits = with_shots(task, splits, seed)
    notes = check(task, splits, origin)
    if skipped := sum(count for _, count in given.values()):
        notes = (f"{skipped} rows with a missing value were left out (task.missing=skip)", *notes)
    if as_given and data.split == "held_out" and data.name != "local":  # there it is the default, and not a choice
        notes = (f"{origin} has all three splits: used as they are, data.split has no effect", *notes)
    bundled = data.name == "bundled"
    return Splits(**splits, fingerprint=fingerprint(splits), bundled=bundled, origin=origin, notes=notes, task=task)


Read = tuple[Examples, int]  # examples, and how many rows were left out
Loaded = tuple[dict[str, Read], bool, str]


def _in_memory(task: Task, rows: Located) -> Read:
    checked = list(task.checked(rows))
    examples = tuple(example for example in checked if example is not None)
    return examples, len(checked) - len(examples)


def _bundled(task: Task, data: DataConfig) -> Loaded:
    from mmpt.bundled.tasks import records  # makes the miniature, only where it is asked for

    given = {
        name: _in_memory(task, ((f"bundled {task.name} {name}:{number}", row) for number, row in enumerate(part, 1)))
        for name, part in records(task.name).items()
    }
    return given, True, "bundled miniature (synthetic)"


def _local(task: Task, data: DataConfig) -> Loaded:
    try:
        folder = _directory(task, data)
    except (OSError, RuntimeError) as error:  # too long a name, no permission, ~ of an unknown user
        raise DataError(f"data.dir={data.dir} cannot be read ({one_line(error)}); give another directory") from error
    files = task.config.files
    as_given = data.split == "official" or all(name in files for name in SPLITS)
    names = _needed(files, as_given, "task.files")
    return (
        {name: _read(task, _paths(folder, files[name]), data.num_proc) for name in names},
        as_given,
        f"local {folder}",
    )


def _paths(folder: Path, name: str) -> dict[Path, str]:
    """A split's files, with what messages call them; several where the name is a pattern, or a saved dataset."""
    paths, pattern = [folder / name], name
    if (paths[0] / "dataset_info.json").exists():  # Dataset.save_to_disk wrote it
        folder, pattern = paths[0], "data-*.arrow"
    if glob.has_magic(pattern) and not (folder / pattern).exists():
        paths = sorted(path for path in folder.glob(pattern) if path.is_file())
        if not paths:
            raise DataError(f"task.files: {pattern} matches nothing in {folder}, which has: {listing(folder)}")
    return {path: f"{path.parent.name}/{path.name}" if path.parent.name else name for path in paths}


def _read(task: Task, paths: Mapping[Path, str], workers: int) -> Read:
    """The examples of one split, of small files in memory and of others stored."""

    def rows(task: Task) -> Located:
        for path, name in paths.items():
            yield from read_rows(path, name, task.csv, task.is_row)

    if sum(path.stat().st_size for path in paths if path.is_file()) <= SMALL:
        return _in_memory(task, rows(task))
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return store(task.config, digest.hexdigest(), rows, workers)


def _directory(task: Task, data: DataConfig) -> Path:
    """The task's folder below ``data.dir``, or ``data.dir`` itself where the task's files lie in it."""
    if data.dir is None:
        raise DataError("data=local needs data.dir=DIR")
    files = task.config.files
    root = Path(data.dir).expanduser()
    if not root.exists():
        beside = sorted(entry.name for entry in root.parent.iterdir()) if root.parent.is_dir() else []
        raise DataError(f"data.dir={data.dir}: no such directory{nearest(root.name, beside)}")
    if not root.is_dir():
        raise DataError(f"data.dir={data.dir} is a file; give the directory it lies in ({root.parent})")
    folder = task.config.directory
    if folder is not None and (root / folder).is_dir():
        return root / folder
    if any(glob.has_magic(name) or (root / name).exists() for name in files.values()):
        return root
    wanted = f"neither {folder}/ nor {', '.join(files.values())}" if folder else f"no {', '.join(files.values())}"
    names = [entry.name for entry in root.iterdir()]
    hint = nearest(folder or next(iter(files.values()), ""), names)
    raise DataError(f"data.dir={data.dir} has {wanted}; it has: {listing(root)}{hint} (task.files names the files)")


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
    if data.repo is not None:
        return _hub_dataset(task, data, data.repo)
    hub = task.config.hub
    if hub is None:
        raise DataError(f'task "{task.name}" names no hub dataset (task.hub or data.repo=OWNER/NAME); {OFFLINE}')
    as_given = data.split == "official"
    names = _needed(hub.files, as_given, "task.hub.files")
    given = {name: _read(task, {_download(hub, hub.files[name]): hub.files[name]}, data.num_proc) for name in names}
    return given, as_given, f"hub {hub.repo}@{hub.revision[:12]}"


def _hub_dataset(task: Task, data: DataConfig, repo: str) -> Loaded:
    """Any dataset of the hub, through `datasets`."""
    library()
    from datasets import get_dataset_config_names, load_dataset

    limits = {"train": data.limit_train, "validation": data.limit_validation, "test": data.limit_test}
    if data.streaming and limits["train"] is None:
        raise DataError("data.streaming=true needs data.limit_train=N or trainer.max_steps=N: how much is to be read")
    with _one_line(repo):
        state = _state(repo, data.revision)
        where = {"path": repo, "revision": state if COMMIT.fullmatch(state) else data.revision}
        # without a network the names are unknown
        configs: Any = get_dataset_config_names(**where) if state else [data.config]
        if data.config not in configs and (data.config is not None or len(configs) > 1):
            hint = nearest(data.config or "", configs)
            raise DataError(f"hub {repo}: set data.config to one of {', '.join(map(str, configs[:40]))}{hint}")
        where["name"] = data.config or configs[0]
        parts: Any = load_dataset(**where, streaming=data.streaming)
    splits = [name for name in SPLITS if name in parts]
    as_given = data.split == "official"
    kept = splits if as_given or "validation" not in splits else splits[:2]  # labels of a test split are often hidden
    names = _needed({name: name for name in kept}, as_given, f"hub {repo}")

    def read(name: str) -> Read:
        most = limits[name] if data.streaming else None
        if most is not None and name == "train" and not as_given:
            most = math.ceil(most / (1 - data.validation_fraction))
        key = f"{where}{name}{most}{state}{data.streaming}{getattr(parts[name], 'cache_files', '')}"

        def located(task: Task) -> Located:
            with _one_line(repo):
                features = parts[name].features  # None of some that are streamed
                narrow = narrow_columns(features.arrow_schema) if features else {}
                for number, row in enumerate(itertools.islice(parts[name], most), start=1):
                    yield f"{repo} {name} row {number}", as_written(row, narrow)

        return store(task.config, key, located, data.num_proc)

    return {name: read(name) for name in names}, as_given, f"hub {repo} {where['name']}"


def _state(repo: str, revision: str | None) -> str:
    """What a dataset's content follows from: its commit, or its files where it is a folder; empty without a network."""
    from huggingface_hub import constants, dataset_info

    if Path(repo).is_dir():
        files = sorted((str(file), file.stat()) for file in Path(repo).rglob("*") if file.is_file())
        return str([(name, stat.st_size, stat.st_mtime_ns) for name, stat in files])
    return "" if constants.HF_HUB_OFFLINE else dataset_info(repo, revision=revision, timeout=TIMEOUT_S).sha or ""


@contextmanager
def _one_line(repo: str) -> Iterator[None]:
    """Every failure of the hub, or of a dataset there, as one line."""
    from datasets.exceptions import DatasetGenerationError, DatasetsError

    with one_line_errors(repo, DataError, check="data.repo and data.revision", instead=f"{OFFLINE}; {FETCHED}"):
        try:
            yield
        except (DatasetsError, FileNotFoundError, ValueError, RuntimeError) as error:
            cause = error.__cause__ if isinstance(error, DatasetGenerationError) else None  # it says what is wrong
            text = one_line(cause or error)
            if "script" in text:
                text = "it needs code from the hub, which is never run; choose a revision with data files alone"
            raise DataError(f"hub {repo}: {text[:300]}") from error


def _download(hub: HubConfig, file: str) -> Path:
    """One file at the pinned revision, from the hub's cache where it is there already."""
    where = f"{hub.repo}@{hub.revision}/{file}"
    with one_line_errors(where, DataError, check="task.hub", instead=f"it isn't cached; {OFFLINE}"):
        return fetch(hub.repo, file, repo_type="dataset", revision=hub.revision)
