"""What ``model.device_map`` refuses before a model is loaded, and that it is no part of a run's fingerprint."""

from __future__ import annotations

from typing import Any

import pytest

from mmpt.cli import CONF
from mmpt.config.compose import compose, read_command_line
from mmpt.training.fingerprint import run_fingerprint
from mmpt.training.settings import check, find_problems


def composed(*words: str) -> Any:
    return compose(read_command_line(["logger=none", *words], CONF).overrides, CONF)


def test_where_layers_lie_makes_no_other_run() -> None:
    words = ["model.device_map=auto", "model.max_memory={cpu: 2GiB}"]
    assert run_fingerprint(check(composed(*words))) == run_fingerprint(check(composed()))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            ["method=full"],
            "method=full trains inside of layers, whose weights come and go; choose another method, or leave",
        ),
        (
            ["method=lora"],
            "method=lora trains inside of layers, whose weights come and go; choose another method, or leave",
        ),
        (
            ["model=t5_small_random"],
            "model.source=random has no checkpoint to read layers from; set model.path=DIR, or",
        ),
        (["model.quantization=int8"], "model.quantization=int8 needs one device; set it to none, or leave"),
        (["trainer.torch_compile=true"], "set trainer.torch_compile=false"),
        (["model.device_map=balanced"], "choose from: auto"),
        (["model.device_map=null", "model.max_memory={cpu: 2GiB}"], "add that"),
        (["model.max_memory={gpu: 2GiB}"], "model.max_memory has gpu: 2GiB, which is no device with its room; write"),
        (["model.max_memory={0: 2 gigabytes}"], "model.max_memory={0:20GiB,cpu:64GiB}, where 0 is a GPU"),
    ],
)
def test_what_cannot_work_is_refused_before_loading(
    words: list[str], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmpt.config.rules.find_spec", lambda name: object())  # as if every package were there
    (problem,) = find_problems(composed("model.device_map=auto", *words))
    assert part in problem[1] and "\n" not in problem[1]


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    (problem,) = find_problems(composed("model.device_map=auto"))
    assert "start it without torchrun, or leave model.device_map out" in problem[1]
