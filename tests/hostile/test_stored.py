"""What mmpt has stored and finds again: cache entries and outcomes of trials, with anything in them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from mmpt.cache.entry import Draft, Mapped
from mmpt.cache.store import Damaged, Store
from mmpt.runs.failures import TrialRecord
from mmpt.runs.record import RunRecord, read_status
from mmpt.runs.typed_json import to_json
from mmpt.sweep.outcomes import Outcome, Outcomes
from mmpt.sweep.plan import Plan
from mmpt.sweep.progress import Progress
from mmpt.sweep.table import ranked
from mmpt.utils.files import read_json, read_jsonl
from tests.commands import cache as main
from tests.hostile.cases import TEXTS, as_json, both, check, spoilt_bytes, spoilt_json, spoilt_values
from tests.report.builder import write as write_result

KEY = "ab" * 32
TENSORS = {"means": ("F32", (2, 3)), "states": ("F16", (5, 3))}
CONTENT = bytes(range(54))  # 24 + 30


def fill(draft: Draft) -> None:
    for name, place in draft.spans.items():
        draft.put(name, 0, memoryview(CONTENT[: place.size]))


def bytes_in(mapped: Mapped) -> bytes:
    return b"".join(mapped.buffer[at.first : at.first + at.size] for at in mapped.spans.values())


@both(25, 1500)
def test_cache_entries(cases: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever lies there, what is fetched is what was computed, and the commands tell of it."""
    store = Store(tmp_path, 1.0)
    right = bytes_in(store.fetch(KEY, TENSORS, fill, {}, lambda _: None))
    tensors, described = (store.path(KEY, suffix).read_bytes() for suffix in ("safetensors", "json"))
    length = int.from_bytes(tensors[:8], "little")
    header = json.loads(tensors[8 : 8 + length])

    def lie(content: Any) -> bytes:
        text = as_json(content)
        return len(text).to_bytes(8, "little") + text + tensors[8 + length :]

    def holds(blob: bytes, description: bytes, signed: bool) -> None:
        store.path(KEY, "safetensors").write_bytes(blob)
        if signed:
            description = json.dumps({"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}).encode()
        store.path(KEY, "json").write_bytes(description)
        with contextlib.suppress(Damaged):
            store.open(KEY)
        assert main(["list", "--dir", str(tmp_path)]) == 0
        assert main(["list", "--json", "--dir", str(tmp_path)]) == 0
        assert main(["verify", "--dir", str(tmp_path)]) in (0, 1)
        told = capsys.readouterr()
        assert "\x1b" not in told.out and not told.err
        if not signed:  # who can write both files can write any values: docs/security.md
            assert bytes_in(store.fetch(KEY, TENSORS, fill, {}, lambda _: None)) == right
        else:
            fetched = store.fetch(KEY, TENSORS, fill, {}, lambda _: None)
            assert {name: (at.kind, at.shape) for name, at in fetched.spans.items()} == TENSORS

    blobs = st.one_of(spoilt_bytes(tensors), spoilt_values(header).map(lie), st.just(b""))
    descriptions = st.one_of(st.just(described), spoilt_json(json.loads(described)))
    check(cases, holds, blobs, descriptions, st.booleans())


@both(40, 1500)
def test_outcomes_of_trials(cases: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path, "prefix", 1)
    (run,) = tmp_path.glob("*/result.json")
    done = to_json(Outcome(0, "done", TrialRecord("method=prefix seed=1"), directory=str(run.parent)))

    def holds(contents: list[bytes]) -> None:
        outcomes = Outcomes.create(tmp_path)
        for number, content in enumerate(contents):
            (outcomes.folder / f"{number}.json").write_bytes(content)
        progress = Progress(outcomes, Plan(tmp_path, 2, "basic", 1))
        progress.poll()
        ranked(list(progress.ended.values()))
        progress.in_state("busy")
        progress.summary()
        outcomes.clear()
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err

    check(cases, holds, st.lists(spoilt_json(done), max_size=3))


@both(40, 1500)
def test_status_and_metrics(cases: int, tmp_path: Path) -> None:
    """A run directory opens, as new, done or to go on with, or one error of ours says why not."""
    from mmpt.errors import RunError

    status = {"status": "running", "config_fingerprint": "f", "pid": 1, "host": "h", "error": {"type": "x"}}

    def holds(spoilt: bytes, lines: bytes) -> None:
        (tmp_path / "status.json").write_bytes(spoilt)
        (tmp_path / "metrics.jsonl").write_bytes(lines)
        (tmp_path / "result.json").write_bytes(spoilt)
        found = read_status(tmp_path, "f")
        assert found is None or isinstance(found["status"], str)
        for read in (lambda: read_json(tmp_path / "status.json"), lambda: list(read_jsonl(tmp_path / "metrics.jsonl"))):
            with contextlib.suppress(RunError):
                read()
        try:
            record = RunRecord.open(tmp_path, resolved={"seed": 1}, fingerprint="f")
            record.truncate_metrics(3)
            record.interrupt()
        except RunError as error:
            assert str(tmp_path) in str(error)
        assert not list(tmp_path.glob(".*.tmp"))

    line = {"step": 3, "time": 1.0, "train/loss": 2.0}
    lines = st.lists(st.one_of(spoilt_json(line), st.just(as_json(line))), max_size=3).map(b"\n".join)
    check(cases, holds, st.one_of(st.just(as_json(status)), spoilt_json(status)), lines)


@pytest.mark.parametrize("line", ["null", "[1]", "3", "[" * 100_000])
def test_a_metrics_line_that_is_no_object(line: str, tmp_path: Path) -> None:
    from mmpt.errors import RunError

    (tmp_path / "metrics.jsonl").write_text(f'{line}\n{{"step": 1}}\n')
    with pytest.raises(RunError, match=r"metrics.jsonl:1 is no valid JSON"):
        list(read_jsonl(tmp_path / "metrics.jsonl"))


@pytest.mark.slow
def test_names_of_runs() -> None:
    """A run directory is one folder below run.root, whatever its task is called."""
    from mmpt.config.schema import Config, MethodConfig, ModelConfig, RunConfig, TaskConfig
    from mmpt.training.identity import run_directory

    def holds(task: str, model: str) -> None:
        parts: dict[str, Any] = dict.fromkeys(("optimizer", "scheduler", "data", "evaluation", "logger"))
        config = Config(
            TaskConfig(task, "{a}"), MethodConfig("prefix"), ModelConfig(model), run=RunConfig(None, "root"), **parts
        )
        assert run_directory(config, "0" * 64).parent == Path("root")

    check(300, holds, TEXTS, TEXTS)
