"""Which run a configuration is, and where it lies."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from mmpt.config.schema import Config, DataConfig
from mmpt.data.metrics import source_file as metric_file
from mmpt.data.mixture import load_all, task_of
from mmpt.data.sources import Splits
from mmpt.data.tasks import Task
from mmpt.methods import source_file as method_file
from mmpt.models.adapter_files import read_adapter
from mmpt.models.model_files import files_fingerprint, local_folder
from mmpt.training import distributed
from mmpt.training.fingerprint import run_fingerprint
from mmpt.utils import extensions


@dataclass(frozen=True)
class Identity:
    """What a run is: its data, the hash of all that decides its result, and the directory that follows from both."""

    task: Task
    splits: Splits
    fingerprint: str
    directory: Path
    own_code: str | None  # hash of the user's own files: method, metric and loss


def identify(config: Config) -> Identity:
    """Load the data, and name the run.

    MmptError: the data, the files of a local model, or the adapter to start from, cannot be read.
    """
    task = task_of(config.task)
    splits = load_all(task, _bounded(config), config.seed)
    parts = [run_fingerprint(config), splits.fingerprint]
    if (start := getattr(config.method.options, "init_adapter", None)) is not None:
        parts.append(str(read_adapter(Path(start).expanduser()).description["sha256"]))
    if (folder := local_folder(config.model)) is not None:  # a changed model is another run
        parts.append(files_fingerprint(folder))
    # a changed method, metric or loss is another run
    own = (
        method_file(config.method.name),
        *(metric_file(part.config.metric) for part in task.parts.values() or [task]),
        extensions.find("loss", config.trainer.loss),
    )
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in own if file is not None]
    parts += hashes
    parts += [f"x{distributed.count()}"] if distributed.count() > 1 else []  # they multiply the batch
    fingerprint = hashlib.sha256("".join(parts).encode()).hexdigest()
    own_code = hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else None
    return Identity(splits.task, splits, fingerprint, run_directory(config, fingerprint), own_code)


def _bounded(config: Config) -> DataConfig:
    """The data; of what is streamed, the part that ``trainer.max_steps`` see."""
    data, trainer = config.data, config.trainer
    if not data.streaming or data.limit_train is not None or trainer.max_steps < 1:
        return data
    seen = trainer.max_steps * trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps
    return replace(data, limit_train=seen * distributed.count())


def run_directory(config: Config, fingerprint: str) -> Path:
    """``run.dir``, or a name below ``run.root`` with the parts of the run, another for every configuration."""
    if config.run.dir is not None:
        return Path(config.run.dir)
    words = [config.task.name, config.method.name, config.model.name, f"s{config.seed}", fingerprint[:8]]
    return Path(config.run.root) / re.sub(r"[^\w.-]+", "_", "-".join(words))
