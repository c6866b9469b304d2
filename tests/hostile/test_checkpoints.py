"""Checkpoints with any content: training resumes, or one error of ours; nothing outside is read or deleted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmpt.config.schema import OptimizerConfig
from mmpt.errors import MmptError, RunError
from mmpt.training.checkpoint import State, last_checkpoint, random_state, restore, tensors_of, write_checkpoint
from mmpt.training.optim import build_optimizer
from tests.hostile.cases import as_json, both, check, spoilt_bytes, spoilt_json

OPTIMIZERS = ("adafactor", "adamw")


class Tiny:
    """Linear regression with one of our optimizers: the smallest training that has a checkpoint."""

    def __init__(self, optimizer: Any) -> None:
        """Four parameters and their optimizer."""
        torch.manual_seed(1)
        self.layer = nn.Linear(3, 1)
        self.optimizer = build_optimizer(
            OptimizerConfig(optimizer), {"all": list(self.layer.parameters())}, {"all": 0.01}
        )
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0)  # a power of two changes no bit
        self.step = 0

    def train(self, steps: int) -> None:
        """Some optimizer steps."""
        while self.step < steps:
            self.scaler.scale(self.layer(torch.randn(2, 3)).square().mean()).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
            self.step += 1

    def save(self, checkpoints: Path) -> None:
        """A checkpoint of this step."""
        state = State(step=self.step, logged=1, best_step=self.step, best_value=0.5)
        state.scaler = self.scaler.state_dict()
        write_checkpoint(checkpoints, state, tensors_of(self.layer, self.optimizer, [random_state()]), limit=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint at step 2 of an undisturbed training, by optimizer."""
    found = {}
    for optimizer in OPTIMIZERS:
        tiny = Tiny(optimizer)
        tiny.train(2)
        tiny.save(folder := tmp_path_factory.mktemp(optimizer) / "run")
        found[optimizer] = folder / "checkpoint-2"
    return found


def resume(checkpoints: Path, optimizer: str) -> int | None:
    """Resume and train to step 4; the step that training resumed from, or None where an error of ours says why not."""
    tiny = Tiny(optimizer)
    try:
        newest = last_checkpoint(checkpoints)
        if newest is not None:
            tiny.step = restore(newest, tiny.layer, tiny.optimizer, tiny.scaler, 0, 1).step
    except MmptError as error:
        assert str(checkpoints) in str(error)
        return None
    first = tiny.step
    tiny.train(4)
    tiny.save(checkpoints)
    return first


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_undamaged_checkpoint_resumes_to_the_same_bits(
    optimizer: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(whole[optimizer].parent, tmp_path / "run")
    assert resume(tmp_path / "run", optimizer) == 2
    straight = Tiny(optimizer)
    straight.train(4)
    resumed = load_file(tmp_path / "run" / "checkpoint-4" / "state.safetensors")
    assert torch.equal(resumed["parameters.weight"], straight.layer.weight.detach())


@both(3, 500)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_any_checkpoint(optimizer: str, cases: int, whole: dict[str, Path], tmp_path: Path) -> None:
    source, outside = whole[optimizer], tmp_path / "outside" / "checkpoint-1"
    shutil.copytree(source, outside)
    files = {path.name: path.read_bytes() for path in source.iterdir()}

    def holds(case: tuple[str, bytes]) -> None:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(source.parent, tmp_path / "run")
        name, content = case
        (tmp_path / "run" / source.name / name).write_bytes(content)
        resume(tmp_path / "run", optimizer)
        assert {path.name for path in outside.iterdir()} == set(files)

    def spoilt(name: str) -> st.SearchStrategy[bytes]:
        return spoilt_json(json.loads(files[name])) if name.endswith(".json") else spoilt_bytes(files[name])

    check(cases, holds, st.sampled_from(sorted(files)).flatmap(lambda name: st.tuples(st.just(name), spoilt(name))))


STATES: dict[str, dict[str, Any]] = {
    "a step of another checkpoint": {"step": 10**30},
    "a step that is text": {"step": "2"},
    "a best value that is text": {"best_value": "high"},
    "a best step that is a path": {"best_step": "../../outside/checkpoint-1"},
    "a best step to come": {"best_step": 3},
    "a log line to come": {"logged": 3},
    "an unknown field": {"__class__": "x"},
    "a loss that is no number": {"losses": [float("nan")]},
    "no process": {"losses": []},
    "a flag that is a list": {"over": [1]},
    "a negative size": {"metrics_bytes": -1},
    "a newer format": {"format": 3},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_from_elsewhere_is_no_checkpoint(kind: str, whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["adamw"].parent, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint-2" / "state.json"
    path.write_bytes(as_json({**json.loads(path.read_bytes()), **STATES[kind]}))
    tiny = Tiny("adamw")
    with pytest.raises(RunError, match="checkpoint-2"):
        restore(path.parent, tiny.layer, tiny.optimizer, tiny.scaler, 0, 1)
    assert resume(tmp_path / "run", "adamw") == 0  # from the beginning


def test_a_checkpoint_of_another_precision_is_not_resumed(whole: dict[str, Path]) -> None:
    tiny = Tiny("adamw")
    with pytest.raises(RunError, match=r"scaler has .*growth_interval"):
        restore(whole["adamw"], tiny.layer, tiny.optimizer, torch.amp.GradScaler("cpu", enabled=False), 0, 1)


TENSORS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "an average of another shape": lambda s: {**s, "optimizer.0.exp_avg": torch.zeros(7)},
    "an average of whole numbers": lambda s: {**s, "optimizer.0.exp_avg": torch.zeros(1, 3, dtype=torch.long)},
    "an average too many": lambda s: {**s, "optimizer.0.more": torch.zeros(1)},
    "an average missing": lambda s: {name: value for name, value in s.items() if name != "optimizer.0.exp_avg"},
    "the state of another parameter": lambda s: {**s, "optimizer.99.step": torch.zeros(())},
    "a parameter of another shape": lambda s: {**s, "parameters.weight": torch.zeros(2, 3)},
    "a parameter that is no number": lambda s: {**s, "parameters.weight": torch.full((1, 3), float("nan"))},
    "a random state of another size": lambda s: {**s, "random.0.torch": torch.zeros(3, dtype=torch.uint8)},
    "a random state out of range": lambda s: {**s, "random.0.python": torch.full((625,), -1)},
    "random states of two processes": lambda s: {**s, "random.1.torch": s["random.0.torch"]},
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_from_elsewhere_are_refused(kind: str, whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["adamw"].parent, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint-2" / "state.safetensors"
    content = {name: value.clone() for name, value in TENSORS[kind](load_file(path)).items()}
    save_file(content, path)
    assert resume(tmp_path / "run", "adamw") is None


def test_checkpoints_of_two_processes_are_refused_by_one(whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["adamw"].parent, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint-2" / "state.json"
    path.write_bytes(as_json({**json.loads(path.read_bytes()), "losses": [0.0, 0.0]}))
    assert resume(tmp_path / "run", "adamw") is None


def test_the_best_checkpoint_and_the_newest_one_outlive_the_limit(tmp_path: Path) -> None:
    tiny = Tiny("adamw")
    for step in range(1, 6):
        tiny.train(step)
        state = State(step=step, best_step=2 if step > 1 else 1, best_value=1.0)
        write_checkpoint(tmp_path, state, tensors_of(tiny.layer, tiny.optimizer, [random_state()]), limit=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-5"]
