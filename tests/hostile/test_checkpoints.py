"""Checkpoints with anything in them: training goes on, or one error of ours; nothing outside is read or deleted."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from mmpt.errors import MmptError, RunError
from mmpt.training.resumable import last_checkpoint
from tests.hostile.cases import as_json, both, check, spoilt_bytes, spoilt_json, spoilt_values
from tests.hostile.tiny_trainer import TinyTrainer

OPTIMIZERS = ("adafactor", "adamw")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint at step 2 of an undisturbed training, by optimizer."""
    found = {}
    for optimizer in OPTIMIZERS:
        folder = tmp_path_factory.mktemp(optimizer)
        trainer = TinyTrainer(folder / "run", optimizer)
        trainer.args.save_total_limit = 2
        trainer.train()
        shutil.rmtree(folder / "run" / "checkpoint-4")
        found[optimizer] = folder / "run" / "checkpoint-2"
    return found


def go_on(checkpoints: Path, optimizer: str) -> int | None:
    """Resume; the steps that are done then, or None where an error of ours says why not."""
    try:
        newest = last_checkpoint(checkpoints)
        trainer = TinyTrainer(checkpoints, optimizer)
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    except MmptError as error:
        assert str(checkpoints) in str(error)
        return None
    return trainer.state.global_step


def torch_bytes(content: Any) -> bytes:
    sink = io.BytesIO()
    torch.save(content, sink)
    return sink.getvalue()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_undamaged_checkpoint_goes_on(optimizer: str, whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole[optimizer].parent, tmp_path / "run")
    assert go_on(tmp_path / "run", optimizer) == 4


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
        go_on(tmp_path / "run", optimizer)
        assert {path.name for path in outside.iterdir()} == set(files)

    def spoilt(name: str) -> st.SearchStrategy[bytes]:
        if name.endswith(".json"):
            content = json.loads(files[name])
            best = st.sampled_from([str(outside), "../../outside/checkpoint-1"]).map(
                lambda path: as_json({**content, "best_model_checkpoint": path, "best_global_step": None})
            )
            return st.one_of(spoilt_json(content), best) if name == "trainer_state.json" else spoilt_json(content)
        if name.endswith((".pt", ".pth")):
            content = torch.load(io.BytesIO(files[name]), weights_only=False)
            return st.one_of(spoilt_values(content).map(torch_bytes), spoilt_bytes(files[name]))
        return spoilt_bytes(files[name])

    names = st.sampled_from(sorted(files))
    check(cases, holds, names.flatmap(lambda name: st.tuples(st.just(name), spoilt(name))))


def callback(name: str, **state: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {**content, "stateful_callbacks": {**content["stateful_callbacks"], name: state}}


STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a step of another checkpoint": lambda content: {**content, "global_step": 10**30},
    "a step that is text": lambda content: {**content, "global_step": "2"},
    "no lines between logs": lambda content: {**content, "logging_steps": 0},
    "a metric that is text": lambda content: {**content, "best_metric": "high"},
    "a best step that is a path": lambda content: {**content, "best_global_step": "../../outside/checkpoint-1"},
    "an unknown field": lambda content: {**content, "__class__": "x"},
    "a log that is none": lambda content: {**content, "log_history": 3},
    "a method of a callback": callback("EarlyStoppingCallback", args={}, attributes={"on_evaluate": 3}),
    "an argument of a callback": callback("EarlyStoppingCallback", args={"early_stopping_patience": "x"}),
    "a flag that is a list": callback("TrainerControl", args={"should_save": [1]}, attributes={}),
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_of_the_trainer_from_elsewhere(kind: str, whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["adamw"].parent, tmp_path / "run")
    place = tmp_path / "run" / "checkpoint-2" / "trainer_state.json"
    place.write_bytes(as_json(STATES[kind](json.loads(place.read_bytes()))))
    with contextlib.suppress(RunError):
        from mmpt.training.restored import check_state

        trainer = TinyTrainer(tmp_path / "run", "adamw")
        check_state(place.parent, [*trainer.callback_handler.callbacks, trainer.control])
        pytest.fail("it was taken for a state of this run")
    assert go_on(tmp_path / "run", "adamw") in (None, 4)  # refused, or the training began again


def first(state: Any, **changed: Any) -> Any:
    return {**state, "state": {**state["state"], 0: {**state["state"][0], **changed}}}


def grouped(state: Any, **changed: Any) -> Any:
    return {**state, "param_groups": [{**state["param_groups"][0], **changed}]}


TENSORS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a tensor without an end": ("optimizer.pt", lambda s: first(s, exp_avg=torch.zeros(1).expand(10**9, 10**9))),
    "a tensor of another shape": ("optimizer.pt", lambda s: first(s, exp_avg=torch.zeros(7))),
    "a tensor that is text": ("optimizer.pt", lambda s: first(s, exp_avg="x")),
    "a tensor too many": ("optimizer.pt", lambda s: first(s, more=torch.zeros(1))),
    "a rate that is text": ("optimizer.pt", lambda s: grouped(s, lr="x")),
    "a rate that is nothing": ("optimizer.pt", lambda s: grouped(s, lr=None)),
    "no rate": ("optimizer.pt", lambda s: grouped({**s, "param_groups": [{"params": [0, 1]}]})),
    "a parameter too many": ("optimizer.pt", lambda s: {**s, "state": {**s["state"], 99: {}}}),
    "no state": ("optimizer.pt", lambda s: [s]),
    "a method of the schedule": ("scheduler.pt", lambda s: {**s, "get_lr": 3}),
    "rates of more groups": ("scheduler.pt", lambda s: {**s, "base_lrs": [0.1] * 5}),
    "a step that is text": ("scheduler.pt", lambda s: {**s, "last_epoch": "x"}),
    "progress beyond the step": ("progress_0.json", lambda s: {**s, "logged": 3}),
    "progress that is no number": ("progress_0.json", lambda s: {**s, "loss": float("nan")}),
    "a random state of another kind": ("rng_state.pth", lambda s: {**s, "python": 3}),
    "a scaler that isn't needed": ("scaler.pt", lambda s: {"scale": 1.0}),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_other_files_of_a_checkpoint_from_elsewhere(kind: str, whole: dict[str, Path], tmp_path: Path) -> None:
    name, change = TENSORS[kind]
    shutil.copytree(whole["adamw"].parent, tmp_path / "run")
    place = tmp_path / "run" / "checkpoint-2" / name
    if name.endswith(".json"):
        place.write_bytes(as_json(change(json.loads(place.read_bytes()))))
    else:
        place.write_bytes(torch_bytes(change(torch.load(place, weights_only=False) if place.exists() else None)))
    done = go_on(tmp_path / "run", "adamw")
    assert done == (4 if name.endswith(".json") else None)  # without its progress a checkpoint isn't whole


def test_settings_of_another_version_are_no_defect(whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["adamw"].parent, tmp_path / "run")
    for name in ("optimizer.pt", "scheduler.pt"):
        place = tmp_path / "run" / "checkpoint-2" / name
        content = torch.load(place, weights_only=False)
        content = grouped(content, fresh=True) if name == "optimizer.pt" else {**content, "fresh": 1}
        (content["param_groups"][0] if name == "optimizer.pt" else content).pop("fused", None)
        place.write_bytes(torch_bytes(content))
    assert go_on(tmp_path / "run", "adamw") == 4


def test_the_best_checkpoint_is_never_outside(whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["adamw"].parent, tmp_path / "run")
    shutil.copytree(whole["adamw"], tmp_path / "outside" / "checkpoint-1")
    place = tmp_path / "run" / "checkpoint-2" / "trainer_state.json"
    content = json.loads(place.read_bytes())
    content |= {"best_model_checkpoint": str(tmp_path / "outside" / "checkpoint-1"), "best_metric": -1.0}
    place.write_text(json.dumps({**content, "best_global_step": None}))
    assert go_on(tmp_path / "run", "adamw") == 4
    assert (tmp_path / "outside" / "checkpoint-1" / "optimizer.pt").exists()
    newest = json.loads((tmp_path / "run" / "checkpoint-4" / "trainer_state.json").read_bytes())
    assert newest["best_model_checkpoint"] is None
