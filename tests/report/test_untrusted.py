"""Files of runs with anything in them: the report says what it can and never breaks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import report as main
from tests.report.builder import HOSTILE, write, write_masks

ODD: list[Any] = [None, "", "x", -1, 0, 1e308, 10**400, True, [], {}, [1, "a"], {"a": {"b": 1}}, float("nan"), *HOSTILE]


def spoil(content: Any, rng: random.Random) -> Any:
    """Put something odd at a random place of nested values."""
    if not isinstance(content, dict | list) or not content or rng.random() < 0.15:
        return rng.choice(ODD)
    key = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
    content[key] = spoil(content[key], rng)
    return content


def spoil_file(path: Path, rng: random.Random) -> None:
    """Spoil one file of a run: a value, or the bytes."""
    text = path.read_text()
    if rng.random() < 0.2:
        cut = rng.randrange(len(text) + 1)
        path.write_bytes(text[:cut].encode() + rng.choice([b"", b"\xff\xfe", b"\0", b"\n{"]) + text[cut + 3 :].encode())
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(spoil(yaml.safe_load(text), rng), allow_unicode=True))
    elif path.suffix == ".jsonl":
        lines = [spoil(json.loads(line), rng) for line in text.splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        path.write_text(json.dumps(spoil(json.loads(text), rng)))


@pytest.mark.parametrize("start", range(12))
def test_odd_values_anywhere(start: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(start)
    for seed in (1, 2):
        write(tmp_path / "runs", "prefix", seed, answers=[True, False])
        spoiled = write(tmp_path / "runs", "smop", seed, 0.8, answers=[True, True])
        write_masks(spoiled)
        for path in rng.sample(sorted(spoiled.glob("*.*")), 2):
            spoil_file(path, rng)
    formats = "md,tex,csv,parquet,json,html,jsonl,peft"
    call = [str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--baseline", "prefix", "--formats", formats]
    assert main(call) in (0, 1)
    told = capsys.readouterr()
    assert "prefix" in told.out and "Traceback" not in told.err
    json.loads((tmp_path / "out" / "report.json").read_text())
