"""``mmpt tasks check NAME``: what a model reads of a task's data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from mmpt.cli.program import print_table
from mmpt.cli.train import COMPOSING
from mmpt.config.compose import CONF, compose, describe, read_command_line
from mmpt.config.schema import Config
from mmpt.data.columns import values
from mmpt.errors import ConfigError
from mmpt.training.settings import check as check_settings
from mmpt.utils.extensions import add_folder

SHOWN = 3  # prompts


def check(name: str, settings: list[str], config_dir: Path | None = None) -> None:
    """Print it.

    Raises:
        ConfigError: A setting is wrong.
        MmptError: The data or the model cannot be read.
    """
    config = _config([f"task={name}", *settings, *(["--config-dir", str(config_dir)] if config_dir else [])])
    from mmpt.data.mixture import load_all, task_of
    from mmpt.models.backbone import load_backbone
    from mmpt.models.engine import ENGINES

    task = task_of(config.task)
    splits = load_all(task, config.data, config.seed)
    task = splits.task
    backbone = load_backbone(config.model, classes=task.outputs)
    reading = ENGINES[backbone.kind].READING(task, backbone.tokenizer, config.data.max_length)
    print(f"task={name}: {splits.origin}; reads {', '.join(task.fields)}; {', '.join(task.metric_names)}")
    parts = {part: getattr(splits, part) for part in ("train", "validation", "test")}
    encoded = {part: reading.encode(examples) for part, examples in parts.items()}
    head = ["split", "examples", *(task.words or ["targets"]), "tokens (median)", "(longest)", "cut", "unknown"]
    rows = [head]
    for part, examples in parts.items():
        counts = Counter(target for (target,) in values(examples, "target"))
        ids = [_flat(feature["input_ids"]) for feature in encoded[part]]
        lengths, unknown = [len(each) for each in ids], backbone.tokenizer.unk_token_id
        share = sum(each.count(unknown) for each in ids) / max(1, sum(lengths))
        labels = [str(counts[word]) for word in task.words] or [f"{len(counts)} different"]
        cut = encoded[part].truncated / len(examples)
        rows.append(
            [part, str(len(examples)), *labels, f"{median(lengths):g}", str(max(lengths)), f"{cut:.1%}", f"{share:.1%}"]
        )
    print_table(rows)
    for note in [*splits.notes, *reading.notes(list(encoded.values()), config.evaluation)]:
        print(f"note: {note}")
    for example in splits.train[:SHOWN]:
        print(f"  {example.source} -> {example.target}")


def _config(words: list[str]) -> Config:
    """The settings as ``train`` would have them."""
    line = read_command_line(words, CONF)
    if line.problems or (line.flags and line.config_dir is None):
        raise ConfigError(line.problems or [f"{line.flags[0]} is no setting; give KEY=VALUE"])
    if line.config_dir is not None:
        add_folder(line.config_dir)
    try:
        return check_settings(compose(line.overrides, CONF, line.config_dir))
    except COMPOSING as error:
        raise ConfigError(describe(error)) from error


def _flat(ids: list[Any]) -> list[int]:
    """Token ids; of several choices the longest one's."""
    return max(ids, key=len) if ids and isinstance(ids[0], list) else ids
