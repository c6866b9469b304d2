"""``mmpt tasks new FILE``: a task's YAML from a look at a file. Imports no torch."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from mmpt.config.schema import CsvConfig, TaskConfig
from mmpt.data.files import Located, read_rows
from mmpt.data.label_map import UNLABELLED, canonical, is_missing
from mmpt.data.tasks import Task
from mmpt.errors import ConfigError, DataError, nearest
from mmpt.utils.files import write_text
from mmpt.utils.screen import program

LOOK = 1000  # rows by which columns are judged
MOST_LABELS = 50  # more values than that are free text
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "answer", "intent", "topic")
OTHERS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="csv, tsv, json, jsonl or parquet: the training file.")],
    text: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="A column to read; repeatable.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to answer.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The task's name; default: the file's.")] = None,
    delimiter: Annotated[str | None, typer.Option(metavar="CHAR", help="Between columns, if not as usual.")] = None,
    config_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where DIR/task/NAME.yaml is written.")] = Path(
        "mine"
    ),
) -> None:
    """Write a task's YAML file from a look at FILE; columns that are not named are guessed."""
    name = name or re.sub(r"\W+", "_", (file.absolute().parent if file.stem == "train" else file).name.split(".")[0])
    target = config_dir / "task" / f"{name}.yaml"
    if target.exists():
        raise ConfigError(f"{target} exists; choose another name with --name NAME, or remove it")
    form = Task(TaskConfig(name, "{text}", csv=CsvConfig(delimiter=delimiter))).csv

    def rows() -> Located:
        return read_rows(file, file.name, form)

    first = [row for _, row in islice(rows(), LOOK)]
    columns = list(dict.fromkeys(column for row in first for column in row))
    for column in [*(text or []), *([label] if label else [])]:
        if column not in columns:
            raise ConfigError(
                f"{file.name} has no column {column!r}; it has: {', '.join(columns)}{nearest(column, columns)}"
            )
    label = label or _label(first, columns, file.name)
    text = text or _texts(first, [column for column in columns if column != label])
    if not text:
        raise ConfigError(f"{file.name} has no text besides {label!r}; name its columns with --text COLUMN")
    labels = _labels(rows(), label)
    files = {"train": file.name, **_others(file)}
    template = " ".join([name, *(f"{column}: {{{column}}}" for column in text)])
    config = TaskConfig(name, template, label, labels, files=files, csv=form)
    shown = [(one.source, one.target) for one in islice(Task(config).examples(rows()), 3)]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, _page(config, columns))
    print(f"{target}: reads {', '.join(text)}; answers {label} ({', '.join(labels) or 'free text'})")
    for source, answer in shown:
        print(f"  {source} -> {answer}")
    if len(files) == 1:
        print(f"One more file is needed: files.validation in {target} (its scores are reported).")
    words = [*program("tasks"), "check", name, "--config-dir", str(config_dir), "data=local", f"data.dir={file.parent}"]
    print(f"next: {' '.join(words)}")


def _label(rows: list[dict[str, Any]], columns: list[str], name: str) -> str:
    """The column with a usual name, else that with the fewest values which repeat."""
    if usual := [column for column in columns if column.lower() in LABEL_NAMES]:
        return usual[0]
    counts = {column: len({canonical(row.get(column)) for row in rows}) for column in columns}
    able = [column for column in columns if 1 < counts[column] <= min(MOST_LABELS, len(rows) // 2)]
    if not able:
        raise ConfigError(f"no column of {name} looks like a label; name it with --label COLUMN: {', '.join(columns)}")
    return min(able, key=counts.__getitem__)


def _texts(rows: list[dict[str, Any]], columns: list[str]) -> list[str]:
    """The columns with texts of several words, else those with letters."""
    for pattern in (r"\w\s+\w", r"[^\W\d_]"):
        share = {name: sum(bool(re.search(pattern, str(row.get(name) or ""))) for row in rows) for name in columns}
        if found := [name for name in columns if share[name] > len(rows) / 2]:
            return found
    return []


def _labels(rows: Located, label: str) -> dict[str, list[Any]]:
    """Label words with the value that means each; none where there are too many."""
    found: dict[str, list[Any]] = {}
    for where, row in rows:
        if isinstance(value := row.get(label), (dict, list)):
            raise DataError(f"{where}: the label {label!r} is a list or an object; name another column with --label")
        if not is_missing(value) and canonical(value) not in UNLABELLED:
            found.setdefault(canonical(value), [value])
            if len(found) > MOST_LABELS:
                return {}
    return dict(sorted(found.items()))


def _others(file: Path) -> dict[str, str]:
    """The files beside ``train.csv`` that are called as its other splits."""
    found = {}
    for split, words in OTHERS.items():
        names = [re.sub("train", word, file.name) for word in words] if "train" in file.name else []
        if there := [name for name in names if (file.parent / name).exists()]:
            found[split] = there[0]
    return found


def _page(config: TaskConfig, columns: list[str]) -> str:
    """The YAML; JSON strings are YAML that is read as text, whatever they hold."""

    def quoted(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    labels = "".join(f"\n  {quoted(word)}: {quoted(values)}" for word, values in config.labels.items()) or " {}"
    delimiter = f"csv: {{delimiter: {quoted(config.csv.delimiter)}}}\n" if config.csv.delimiter else ""
    return f"""# Made by `mmpt tasks new` from {config.files["train"]}, which has the columns: {", ".join(columns)}.
# conf/task/rte.yaml explains every key of a task.
name: {quoted(config.name)}
# The input text; {{column}} is replaced by that column of a row.
template: {quoted(config.template)}
label_field: {quoted(config.label_field)}
# The word that the model answers: the values of label_field that mean it. Words say more than numbers.
labels:{labels}
metric: {"accuracy" if config.labels else "exact_match"}
# Without a test file, a part of train becomes validation, and the validation file becomes the test set.
files: {quoted(config.files)}
{delimiter}"""
