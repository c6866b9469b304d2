"""``mmpt tasks``: the list of tasks, a look at one with its data, and a new one from a file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from mmpt.bundled.tasks import NAMES
from mmpt.cli.program import new_command, print_table
from mmpt.cli.train import config_of
from mmpt.config.compose import CONF
from mmpt.config.schema import CsvConfig, TaskConfig
from mmpt.data.columns import values
from mmpt.data.files import Located, read_rows
from mmpt.data.label_map import UNLABELLED, canonical, is_missing
from mmpt.data.tasks import Task
from mmpt.errors import ConfigError, DataError, nearest
from mmpt.utils.files import write_text
from mmpt.utils.screen import program
from mmpt.utils.untrusted import one_line, parse_yaml, read_text

COLUMNS = ("task", "metric", "labels", "data")
WIDEST = 40  # characters of the labels

LOOK = 1000  # rows by which columns are judged
MOST_LABELS = 50  # more values than that are free text
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "answer", "intent", "topic")
OTHERS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
SHOWN = 3  # prompts
Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Your folder, with DIR/task/NAME.yaml.")]


command = new_command("List the tasks, check one, or make one.")


@command.callback(invoke_without_command=True, no_args_is_help=False)
def tasks(context: typer.Context, config_dir: Folder = None) -> None:
    """List the tasks: metric, labels, data. `tasks check NAME` looks at one, `tasks new FILE` makes one."""
    if context.invoked_subcommand is not None:
        return
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such directory")
    folders = [CONF] if config_dir is None else [CONF, config_dir]
    files = {path.stem: path for folder in folders for path in sorted((folder / "task").glob("*.yaml"))}
    rows = [COLUMNS, *(_row(name, path) for name, path in sorted(files.items()))]
    print_table(rows)


def _row(name: str, path: Path) -> tuple[str, ...]:
    try:
        content = parse_yaml(read_text(path))
    except Exception as error:  # of YAML and of the system
        return name, "-", "-", f"{path} is unreadable ({one_line(error)[:80]})"
    if not isinstance(content, Mapping):
        return name, "-", "-", f"{path} holds no mapping of settings"
    if name == "mix":
        return name, "mean", "those of mix.tasks", "that of mix.tasks"
    labels = content.get("labels")
    words = ", ".join(map(str, labels)) if isinstance(labels, Mapping) else ""
    shown = words if len(words) <= WIDEST else f"{words[:WIDEST]}..."
    return name, one_line(content.get("metric", "accuracy")), one_line(shown) or "free text", _data(name, content)


def _data(name: str, task: Mapping[str, Any]) -> str:
    """The settings of ``data`` that the task can have."""
    hub = task.get("hub")
    sources = ["bundled"] if name in NAMES else []
    sources += [f"hub ({one_line(hub.get('repo'))})"] if isinstance(hub, Mapping) else []
    files = task.get("files")
    sources += [f"local ({one_line(', '.join(map(str, files.values())))})"] if isinstance(files, Mapping) else []
    return ", ".join(sources) or "-"


@command.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="csv, tsv, json, jsonl, parquet, arrow: for training.")],
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
    if re.fullmatch(r"\w[\w.-]*", name) is None:
        raise ConfigError(f"--name {name} is no name; use letters, digits, _, - and dots")
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


@command.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A task, also one of your own.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As for train: data=local data.dir=DIR model=...")
    ] = None,
    config_dir: Folder = None,
) -> None:
    """Show what a model reads of a task: labels, lengths in tokens, what is cut or unknown, duplicates, prompts."""
    config = config_of([f"task={name}", *(settings or []), *(["--config-dir", str(config_dir)] if config_dir else [])])
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


def _flat(ids: list[Any]) -> list[int]:
    """Token ids; of several choices the longest one's."""
    return max(ids, key=len) if ids and isinstance(ids[0], list) else ids
