"""Look after the activation cache: ``python -m mmpt.cache list|verify|prune``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from mmpt.cache.directory import Entry
from mmpt.cache.store import Store
from mmpt.cli.program import exit_code
from mmpt.config.schema import CacheConfig
from mmpt.errors import CacheError
from mmpt.utils.text import size_text
from mmpt.utils.untrusted import one_line

FIELDS = ("backbone", "task", "examples", "tokens", "layers")  # of the description


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 1 where ``verify`` found damage, 2 after an error told in one line.
    """
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    store = Store(arguments.dir, arguments.max_gb)
    if arguments.dir is not None and not store.directory.is_dir():
        raise CacheError(f"--dir {arguments.dir}: no such directory")
    return _COMMANDS[arguments.command](store, arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmpt.cache",
        description="Look after the activation cache. Entries that a process reads are never deleted. A damaged one is "
        "never used: the next run that needs it computes it again.",
    )
    parser.add_argument(
        "command",
        choices=list(_COMMANDS),
        help="list: what is there; verify: read everything and compare checksums; prune: delete what was used longest "
        "ago until the rest fits, and what killed processes left",
    )
    parser.add_argument("--dir", help="the cache (default: $MMPT_CACHE, else $XDG_CACHE_HOME/mmpt, else ~/.cache/mmpt)")
    most = CacheConfig.max_gb
    parser.add_argument("--max-gb", type=_size, default=most, help=f"what prune leaves; 0: nothing (default {most:g})")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    return parser


def _size(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a number from 0")
    return value


def _list(store: Store, as_json: bool) -> int:
    found = store.entries()
    if as_json:
        _print_json(store, [_plain(entry) for entry in found])
        return 0
    for entry in found:
        print(one_line(_line(entry)))
    total = sum(entry.bytes for entry in found)
    print(f"{_entries(len(found))}, {size_text(total)}, in {store.directory}")
    return 0


def _verify(store: Store, as_json: bool) -> int:
    problems = {entry.key: store.verify(entry.key) for entry in store.entries()}
    damaged = {key: text for key, text in problems.items() if text is not None}
    if as_json:
        _print_json(store, [{"key": key, "problem": text} for key, text in problems.items()])
    else:
        for key, text in damaged.items():
            print(f"{key[:12]} {text}")
        print(f"{_entries(len(problems))} read, {len(damaged)} damaged, in {store.directory}")
    return 1 if damaged else 0


def _prune(store: Store, as_json: bool) -> int:
    deleted = store.prune(store.max_bytes)
    if as_json:
        _print_json(store, [_plain(entry) for entry in deleted])
        return 0
    freed, left = sum(entry.bytes for entry in deleted), store.size()
    print(f"{_entries(len(deleted))} deleted, {size_text(freed)}; {size_text(left)} left in {store.directory}")
    return 0


_COMMANDS = {"list": _list, "verify": _verify, "prune": _prune}


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


if __name__ == "__main__":
    sys.exit(main())
