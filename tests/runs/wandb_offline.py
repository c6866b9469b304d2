"""Read an offline W&B run back from its file."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def records(directory: Path) -> list[Any]:
    """Read a finished offline run back; W&B's own process closes the file a moment after the run has finished."""
    while True:
        read = list(parse_records(directory))
        if any(record.HasField("exit") for record in read):
            return read
        time.sleep(0.05)


def parse_records(directory: Path) -> Iterator[Any]:
    """Read what is there: framed records behind a header of 7 bytes, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    (path,) = directory.glob("wandb/offline-run-*/*.wandb")
    content, position, parts = path.read_bytes(), 7, []
    while position < len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        if position + 7 > len(content):
            return
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        if position + 7 + length > len(content):
            return
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []


def history(directory: Path) -> list[dict[str, Any]]:
    rows = [record.history for record in records(directory) if record.WhichOneof("record_type") == "history"]
    return [
        {".".join([item.key] if item.key else item.nested_key): json.loads(item.value_json) for item in row.item}
        for row in rows
    ]


def summary(directory: Path) -> dict[str, Any]:
    """The last value of each number that a run put into its row in the table of runs."""
    read: dict[str, Any] = {}
    for record in records(directory):
        if record.WhichOneof("record_type") == "summary":
            read |= {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
            }
    return read


def config(directory: Path) -> dict[str, Any]:
    """The settings that a run logged."""
    (run,) = (record.run for record in records(directory) if record.WhichOneof("record_type") == "run")
    return {update.key: json.loads(update.value_json) for update in run.config.update}
