"""``mmpt cache list | verify | prune``: the activation cache. Imports no torch."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from mmpt.cache.store import Entry, Store
from mmpt.cli.program import new_command
from mmpt.config.schema import CacheConfig
from mmpt.errors import CacheError, ConfigError
from mmpt.utils.text import size_text
from mmpt.utils.untrusted import one_line

FIELDS = ("backbone", "task", "examples", "tokens", "layers")  # of the description
Dir = Annotated[
    str | None,
    typer.Option("--dir", metavar="DIR", help="By default $MMPT_CACHE, $XDG_CACHE_HOME/mmpt or ~/.cache/mmpt."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def _size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise ConfigError(f"--max-gb {text} must be a number from 0")
    return size


MAX_GB = typer.Option("--max-gb", metavar="NUMBER", parser=_size, help="GB to shrink to; 0 deletes all.")

command = new_command(
    "Look after the activation cache.\n\nEntries that a process reads are never deleted. A damaged entry is never "
    "used: the next run that needs it computes it again."
)


@command.command("list")
def list_entries(dir: Dir = None, as_json: Json = False) -> None:
    """List the entries."""
    store = _store(dir)
    entries = store.entries()
    if as_json:
        _print_json(store, [_plain(entry) for entry in entries])
        return
    for entry in entries:
        print(one_line(_line(entry)))
    total = sum(entry.bytes for entry in entries)
    print(f"{_entries(len(entries))}, {size_text(total)}, in {store.directory}")


@command.command()
def verify(dir: Dir = None, as_json: Json = False) -> int:
    """Read every entry and compare its checksum; exit code 1 where one is damaged."""
    store = _store(dir)
    problems = {entry.key: store.verify(entry.key) for entry in store.entries()}
    damaged = {key: text for key, text in problems.items() if text is not None}
    if as_json:
        _print_json(store, [{"key": key, "problem": text} for key, text in problems.items()])
    else:
        for key, text in damaged.items():
            print(f"{key[:12]} {text}")
        print(f"{_entries(len(problems))} read, {len(damaged)} damaged, in {store.directory}")
    return 1 if damaged else 0


@command.command()
def prune(dir: Dir = None, max_gb: Annotated[float, MAX_GB] = CacheConfig.max_gb, as_json: Json = False) -> None:
    """Delete the entries used longest ago until the rest fits, and what killed processes left."""
    store = _store(dir, max_gb)
    deleted = store.prune(store.max_bytes)
    if as_json:
        _print_json(store, [_plain(entry) for entry in deleted])
        return
    freed, left = sum(entry.bytes for entry in deleted), store.size()
    print(f"{_entries(len(deleted))} deleted, {size_text(freed)}; {size_text(left)} left in {store.directory}")


def _store(directory: str | None, max_gb: float = CacheConfig.max_gb) -> Store:
    store = Store(directory, max_gb)
    if directory is not None and not store.directory.is_dir():
        raise CacheError(f"--dir {directory}: no such directory")
    return store


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _plain(entry: Entry) -> dict[str, Any]:
    return {"key": entry.key, "bytes": entry.bytes, "used": _time(entry.used), **entry.description}


def _line(entry: Entry) -> str:
    about = "  ".join(f"{name} {entry.description.get(name, '?')}" for name in FIELDS)
    return f"{entry.key[:12]}  {size_text(entry.bytes):>9}  used {_time(entry.used)}  {about}"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _print_json(store: Store, rows: list[dict[str, Any]]) -> None:
    print(json.dumps({"directory": str(store.directory), "entries": rows}, indent=1))
