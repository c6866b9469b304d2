"""Files and descriptions that ask for more than there is: refused in one line, before anything is read or allocated."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from mmpt.attention.prefix import SiteShape
from mmpt.config.schema import ModelConfig
from mmpt.errors import AdapterError, ConfigError, MmptError, ModelError, RunError
from mmpt.methods import create, options_class, parse
from mmpt.methods.base import BackboneShape
from mmpt.models.adapter_files import DESCRIPTION, WEIGHTS, read_adapter, read_state
from mmpt.models.backbone import load_backbone
from mmpt.report.load import load as load_runs
from mmpt.runs.record import RunRecord
from mmpt.utils.files import read_json, read_jsonl
from mmpt.utils.machine import memory_bytes
from tests.hostile.cases import NUMBERS, VALUES, both, check

SHAPE = BackboneShape(16, {site: SiteShape(2, 2, 8) for site in ("encoder", "decoder", "cross")})
COUNTS = {  # the options by which a method grows
    "multimask": ["num_virtual_tokens", "num_routes", "num_route_tokens"],
    "prefix": ["num_virtual_tokens"],
    "apt": ["num_virtual_tokens"],
    "smop": ["num_virtual_tokens", "num_routes"],
    "mept": ["num_virtual_tokens", "num_routes"],
    "prompt": ["num_virtual_tokens"],
    "ptuning": ["num_virtual_tokens", "reparametrization_hidden"],
    "residual": ["num_virtual_tokens", "reparametrization_hidden"],
    "dept": ["num_virtual_tokens", "r"],
}
HUGE = 10**12


def described(method: str, name: str, value: Any) -> dict[str, Any]:
    more = {"share_type": "prepend"} if name == "num_route_tokens" else {}
    return {name: value, **more}


@pytest.mark.parametrize(("method", "name"), [(method, name) for method, names in COUNTS.items() for name in names])
def test_a_method_that_memory_cannot_hold(method: str, name: str) -> None:
    for value in (HUGE, 2**62):
        with pytest.raises(ConfigError, match=f"options of method={method} make"):
            create(parse(method, described(method, name, value)), SHAPE)


def test_a_method_with_more_numbers_than_its_file() -> None:
    assert create(parse("prefix", {"num_virtual_tokens": 4}), SHAPE, most=10**4)
    with pytest.raises(ConfigError, match=r"describe 768,000 numbers, but only 10,000 are there"):
        create(
            parse("prefix", {"num_virtual_tokens": 4000, "sites": ["encoder", "decoder", "cross"]}), SHAPE, most=10**4
        )


def test_counting_draws_no_random_number() -> None:
    torch.manual_seed(1)
    once = create(parse("multimask", {}), SHAPE).state_dict()
    torch.manual_seed(1)
    torch.rand(0)
    again = create(parse("multimask", {}), SHAPE, most=10**9).state_dict()
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_granularity": "mayer"}, 'method.mask_granularity="mayer" is not allowed'),
        ({"num_virtual_tokens": "10"}, "method.num_virtual_tokens must be an integer"),
        ({"num_virtual_tokens": True}, "method.num_virtual_tokens must be an integer"),
        ({"layers": 3}, "method.layers must be text"),
        ({"sites": "decoder"}, "method.sites"),
        ({"nothing": 1}, "unknown key method.nothing"),
        ({"init_std": 10**400}, "method.init_std is out of range"),
    ],
)
def test_options_have_the_types_of_a_command_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create(parse("multimask", options), SHAPE)
    assert message in str(caught.value)


@both(15, 2000)
def test_any_options(cases: int) -> None:
    """A method of the options, or one error of ours; its parameters are within bounds."""

    def holds(method: str, place: int, value: Any, more: Any) -> None:
        fields = [item.name for item in dataclasses.fields(options_class(method))]
        options = {fields[place % len(fields)]: value, fields[(place // 7) % len(fields)]: more}
        try:
            made = create(parse(method, options), SHAPE, most=10**6)
        except MmptError as error:
            assert str(error)
        else:
            assert sum(parameter.numel() for parameter in made.parameters()) <= 10**6

    texts = st.sampled_from(["last_1", "last_99", f"last_{'9' * 5000}", "all", "auto", "zero", "random", "none", "mlp"])
    values = st.one_of(VALUES, NUMBERS, texts, st.lists(st.sampled_from(["encoder", "decoder", "self", 1]), max_size=3))
    check(cases, holds, st.sampled_from(sorted(COUNTS)), st.integers(0, 200), values, values)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_layers", 10**8, "num_layers=100000000 is too large"),
        ("num_decoder_layers", 10**8, "num_decoder_layers=100000000 is too large"),
        ("num_labels", 10**9, "num_labels=1000000000 is too large"),
        ("d_model", 10**9, "of weights, and there are"),
        ("d_ff", 10**12, "of weights, and there are"),
        ("vocab_size", 10**12, "of weights, and there are"),
        ("d_ff", 2**62, "makes no network"),
        ("d_ff", "x", "makes no network"),
        ("num_layers", float("inf"), "num_layers=inf is too large"),
    ],
)
def test_a_network_that_memory_cannot_hold(name: str, value: Any, message: str, tmp_path: Path) -> None:
    from mmpt.bundled import MODEL_DIR

    config = json.loads((MODEL_DIR / "config.json").read_bytes()) | {name: value}
    with pytest.raises(ModelError, match=message):
        load_backbone(ModelConfig("r", "random", architecture="t5", config={"d_model": 16, "d_kv": 8, name: value}))
    shutil.copytree(MODEL_DIR, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"{message}|cannot be read"):
        load_backbone(ModelConfig("p", "path", path=str(tmp_path / "model")))


def sparse(path: Path, size: int) -> Path:
    """A file of any size that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)
    return path


def test_a_description_of_ten_gigabytes(tmp_path: Path) -> None:
    sparse(tmp_path / DESCRIPTION, 10**10)
    sparse(tmp_path / WEIGHTS, 8)
    with pytest.raises(AdapterError, match=r"adapter.json is damaged .*it has 9537 MiB, more than the 64"):
        read_adapter(tmp_path)


def test_weights_that_memory_cannot_hold(tmp_path: Path) -> None:
    content = {"format": 1, "method": {"name": "prefix", "options": {}}, "sha256": ""}
    (tmp_path / DESCRIPTION).write_text(json.dumps(content))
    sparse(tmp_path / WEIGHTS, memory_bytes())
    with pytest.raises(AdapterError, match="MiB, more than the"):
        read_adapter(tmp_path)
    with pytest.raises(AdapterError, match="MiB, more than the"):
        read_state(tmp_path / WEIGHTS)


@pytest.mark.parametrize("name", ["status.json", "result.json", "config.yaml"])
def test_a_report_of_a_run_with_a_huge_file(name: str, tmp_path: Path) -> None:
    from tests.report.builder import write

    run = write(tmp_path, "prefix", 1)
    sparse(run / name, 10**10)
    found = load_runs([tmp_path]).runs[0]
    assert "it has 9537 MiB, more than the 64" in found.problem


def test_lines_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmpt.utils.untrusted.LARGEST", 2**20)
    lines = sparse(tmp_path / "metrics.jsonl", 2**30)
    with pytest.raises(RunError, match=r"metrics.jsonl:1 .*a line has more than 1 MiB"):
        list(read_jsonl(lines))
    (tmp_path / "results.jsonl").symlink_to(lines)
    assert "a line has more than 1 MiB" in load_runs([tmp_path / "results.jsonl"]).runs[0].problem


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Who opens a pipe waits for whoever writes into it."""
    os.mkfifo(tmp_path / "status.json")
    with pytest.raises(RunError, match="it is no file"):
        read_json(tmp_path / "status.json")
    with pytest.raises(RunError, match="it is no file"):
        RunRecord.open(tmp_path, resolved={"seed": 1}, fingerprint="f")
