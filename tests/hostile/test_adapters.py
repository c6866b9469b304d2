"""Adapters with anything in them: a predictor, or one error of ours."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from mmpt.config.schema import EvaluationConfig, ModelConfig, TaskConfig
from mmpt.errors import AdapterError, MmptError
from mmpt.methods import parse
from mmpt.models.adapter_files import DESCRIPTION, WEIGHTS, load_state, read_adapter, save_adapter
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.engine import build_engine
from mmpt.predictor import load
from tests.hostile.cases import TEXTS, as_json, both, check, spoilt_bytes, spoilt_json, spoilt_values
from tests.tiny import adapted

TASK = TaskConfig("kinds", "kind: {text}", "kind", {"animal": ["animal"], "machine": ["machine"]})


@pytest.fixture(scope="module")
def toy() -> Backbone:
    return load_backbone(ModelConfig("bundled"))


@pytest.fixture(scope="module")
def whole(toy: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working adapter of the bundled backbone."""
    model = build_engine(toy, parse("multimask", {"num_virtual_tokens": 2, "num_routes": 2}))
    folder = tmp_path_factory.mktemp("adapter")
    description = {
        "backbone": {**vars(ModelConfig("bundled")), "fingerprint": toy.fingerprint},
        "task": asdict(TASK),
        "evaluation": vars(EvaluationConfig()),
        "max_length": 32,
        "seed": 1,
    }
    save_adapter(folder, model.method, description)
    load(folder).predict([{"text": "the red lion"}])
    return folder


def use(folder: Path) -> None:
    """Load and predict; an error of ours in one line may come of it, and nothing else."""
    try:
        found = load(folder).predict([{"text": "the red lion"}])
        json.dumps(found, allow_nan=False)
    except MmptError as error:
        assert str(error)


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch, toy: Backbone) -> None:
    """Cases that ask for the bundled backbone share one, and none asks the hub."""
    monkeypatch.setattr(
        "mmpt.predictor.load_backbone", lambda config, **_: toy if config == bundled() else again(config)
    )


def bundled() -> ModelConfig:
    return ModelConfig("bundled")


def again(config: ModelConfig) -> Backbone:
    return load_backbone(config)


@both(15, 1200)
def test_descriptions(cases: int, whole: Path, tmp_path: Path) -> None:
    content = json.loads((whole / DESCRIPTION).read_bytes())
    (tmp_path / WEIGHTS).write_bytes((whole / WEIGHTS).read_bytes())

    def holds(spoilt: bytes) -> None:
        (tmp_path / DESCRIPTION).write_bytes(spoilt)
        use(tmp_path)

    check(cases, holds, spoilt_json(content))


@both(25, 600)
def test_weights_with_flipped_bits(cases: int, whole: Path, tmp_path: Path) -> None:
    blob = (whole / WEIGHTS).read_bytes()
    content = json.loads((whole / DESCRIPTION).read_bytes())

    def holds(spoilt: bytes, signed: bool) -> None:
        (tmp_path / WEIGHTS).write_bytes(spoilt)
        digest = hashlib.sha256(spoilt).hexdigest() if signed else content["sha256"]
        (tmp_path / DESCRIPTION).write_text(json.dumps({**content, "sha256": digest}))
        use(tmp_path)
        if not signed and spoilt != blob:
            with pytest.raises(AdapterError):
                read_adapter(tmp_path)

    header = 8 + int.from_bytes(blob[:8], "little")
    spoilt = st.one_of(spoilt_bytes(blob), spoilt_bytes(blob[:header]).map(lambda start: start + blob[header:]))
    check(cases, holds, spoilt, st.booleans())


@both(15, 300)
def test_headers_that_lie(cases: int, whole: Path, tmp_path: Path) -> None:
    """Offsets, shapes and types that are well formed and wrong, under a right checksum."""
    blob = (whole / WEIGHTS).read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header, content = json.loads(blob[8 : 8 + length]), json.loads((whole / DESCRIPTION).read_bytes())

    def holds(lie: Any) -> None:
        text = as_json(lie)
        spoilt = len(text).to_bytes(8, "little") + text + blob[8 + length :]
        (tmp_path / WEIGHTS).write_bytes(spoilt)
        signed = {**content, "sha256": hashlib.sha256(spoilt).hexdigest()}
        (tmp_path / DESCRIPTION).write_text(json.dumps(signed))
        use(tmp_path)

    check(cases, holds, spoilt_values(header))


@both(25, 300)
def test_states_of_other_names_shapes_and_values(cases: int, tmp_path: Path) -> None:
    """Names that look like paths are names; a method takes finite values of its own shapes or none."""
    method = adapted("prefix").method
    right = {name: value.detach().clone() for name, value in method.named_parameters()}

    def holds(name: str, shape: list[int], value: float, dtype: torch.dtype) -> None:
        state: dict[str, torch.Tensor] = dict(right)
        try:
            state[name] = torch.full(shape, value).to(dtype)
        except (RuntimeError, TypeError):
            return
        before = {key: parameter.clone() for key, parameter in method.named_parameters()}
        try:
            load_state(method, state, "here")
        except AdapterError:
            for key, parameter in method.named_parameters():
                assert torch.equal(before[key], parameter), "half of a refused state was taken"
        assert all(bool(torch.isfinite(parameter).all()) for parameter in method.parameters())

    names = st.one_of(TEXTS, st.sampled_from(sorted(right)))
    own = [list(value.shape) for value in right.values()]
    shapes = st.one_of(st.lists(st.integers(0, 3), max_size=4), st.sampled_from(own))
    values = st.sampled_from([0.0, float("nan"), float("inf"), -1e38, 1e30])
    dtypes = st.sampled_from([torch.float32, torch.float16, torch.int8, torch.bool])
    check(cases, holds, names, shapes, values, dtypes)


def test_a_description_without_decoding_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"))
    content["evaluation"]["decoding"] = []
    (tmp_path / DESCRIPTION).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(AdapterError, match=r"adapter.json is damaged: evaluation.decoding=\[\] must name"):
        load(tmp_path)


def test_values_that_are_no_numbers_are_refused(whole: Path, tmp_path: Path) -> None:
    adapter = read_adapter(whole)
    first = sorted(adapter.state)[0]
    blob = save({**adapter.state, first: torch.full_like(adapter.state[first], float("nan"))})
    (tmp_path / WEIGHTS).write_bytes(blob)
    signed = {**adapter.description, "sha256": hashlib.sha256(blob).hexdigest()}
    (tmp_path / DESCRIPTION).write_text(json.dumps(signed))
    with pytest.raises(AdapterError, match=f"{first} holds values that are no numbers"):
        load(tmp_path)
