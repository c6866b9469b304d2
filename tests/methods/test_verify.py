"""Contributions of a wrong shape, and parameters that training does not reach, are one clear line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from mmpt.attention.prefix import KeyValue
from mmpt.errors import ModelError, TrainingError
from mmpt.methods.base import BackboneShape, Contribution, Method
from mmpt.methods.options import MethodOptions
from mmpt.training.watch import PATIENCE, check_gradients
from tests.methods.test_all import CASES, case
from tests.tiny import adapted, batch

SHAPE = BackboneShape(24, adapted("prefix").method.shape.sites)


@dataclass(frozen=True)
class Options(MethodOptions):
    name: ClassVar[str] = "mine"
    GROUPS: ClassVar[tuple[str, ...]] = ("factors",)


class Given(Method):
    """Contributes what a test gives it."""

    def __init__(self, make: Callable[[Any], Contribution]) -> None:
        super().__init__(Options(), SHAPE)
        self.factors = nn.ParameterDict({"A": nn.Parameter(torch.ones(3))})
        self.make = make

    def forward(self, mean: Any) -> Contribution:
        return self.make(self)


def prefix(*size: int, **more: Any) -> Contribution:
    return Contribution({"cross": KeyValue(torch.zeros(*size), torch.zeros(*size), **more)})


@pytest.mark.parametrize(
    ("contribution", "text"),
    [
        (
            Contribution(prompt=torch.zeros(1, 2, 23)),
            r"its prompt must have .* \(B, P, d = 24\); got \(1, 2, 23\)",
        ),
        (Contribution(prompt=torch.zeros(2, 24)), r"its prompt .* got \(2, 24\)"),
        (Contribution(embedding_update=torch.zeros(5, 25)), r"its embedding update .* \(M, d = 24\); got \(5, 25\)"),
        (
            prefix(1, 4, 3, 5, 8),
            r"key of its prefix at site cross .* \(B, L = 1 to 3, H = 3, P, k = 8\); got \(1, 4, 3",
        ),
        (prefix(1, 3, 2, 5, 8), r"key of its prefix at site cross"),
        (prefix(1, 3, 3, 5, 8, key_gate=torch.zeros(1, 3, 2, 5)), r"key_gate .* \(B, L = 3, h = 1 or 3, P = 5\); got"),
        (prefix(1, 3, 3, 5, 8, output_gate=torch.zeros(2)), r"output_gate .* \(L = 3\); got \(2,\)"),
        (Contribution({"self": prefix(1, 3, 3, 5, 8).prefixes["cross"]}), "t5 models have no site 'self'; .* encoder"),
        (torch.zeros(1), "forward must return a Contribution; got Tensor"),
    ],
)
def test_a_wrong_shape_is_one_line(contribution: Any, text: str) -> None:
    with pytest.raises(ModelError, match=f"^method=mine: .*{text}"):
        Given(lambda _: contribution)(None)


def test_a_value_must_have_the_shape_of_its_key_and_groups_must_divide_the_batch() -> None:
    good = prefix(2, 3, 3, 5, 8)
    method = Given(lambda _: good)
    assert method(torch.zeros(4, 24)) is good
    with pytest.raises(ModelError, match=r"\(B = 1 or 3, L = .*got \(2, 3, 3, 5, 8\)"):
        method(torch.zeros(3, 24))
    key = good.prefixes["cross"]
    wrong = Contribution({"cross": replace(key, value=torch.zeros(2, 3, 3, 4, 8))})
    with pytest.raises(ModelError, match=r"value of its prefix at site cross .*P = 5, k = 8\); got"):
        Given(lambda _: wrong)(None)


def test_cacheable_layers_are_derived_and_hold_in_every_pass() -> None:
    encoder = Contribution({"encoder": KeyValue(*(torch.zeros(1, 1, 3, 2, 8) for _ in range(2)))})
    assert Given(lambda _: prefix(1, 3, 3, 5, 8)).cacheable_layers.count == 2
    assert Given(lambda _: encoder).cacheable_layers.count == 1
    assert "a prompt before the text" in str(
        Given(lambda _: Contribution(prompt=torch.ones(1, 1, 24))).cacheable_layers
    )
    changing = Given(lambda method: encoder if method.training else Contribution())
    assert changing.cacheable_layers.count == 2 and changing.training
    with pytest.raises(ModelError, match="changes more layers in this pass than in its first one"):
        changing(None)


def test_the_probe_leaves_modes_and_random_numbers_alone() -> None:
    model = case("multimask-training").train()
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    model.method.probe()
    assert torch.equal(torch.rand(2), wanted) and all(module.training for module in model.method.modules())


@pytest.mark.parametrize("groups", [("factors", "more"), ()])
def test_groups_and_parameters_must_agree(groups: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "GROUPS", groups)
    text = "group 'more' has no parameter" if groups else "parameter factors.A is in group 'factors'"
    with pytest.raises(ModelError, match=text):
        Given(lambda _: Contribution()).parameter_groups()


@pytest.mark.parametrize("name", CASES)
def test_every_method_of_ours_trains_all_it_declares(name: str) -> None:
    model = case(name).train()
    optimizer = torch.optim.SGD(model.method.parameters(), lr=0.01)
    for step in (1, 2, 3):
        optimizer.zero_grad()
        model(*batch()).loss.backward()
        check_gradients(model.method, step)
        optimizer.step()
    assert not model.method.__dict__.get("_mmpt_silent")


def step_of(method: Method, loss: torch.Tensor, step: int) -> None:
    method.zero_grad()
    loss.backward()
    check_gradients(method, step)


def test_a_parameter_without_gradient_stops_the_first_step() -> None:
    method = Given(lambda _: Contribution())
    method.factors["B"] = nn.Parameter(torch.ones(3))
    loss = (method.factors["A"] * method.factors["B"].detach()).sum()
    with pytest.raises(TrainingError, match=r"^method=mine: parameter factors\.B got no gradient in step 1: "):
        step_of(method, loss, 1)


def test_a_gradient_that_stays_zero_stops_the_run_but_may_be_zero_at_first() -> None:
    for late in (False, True):
        method = Given(lambda _: Contribution())
        method.factors["B"] = nn.Parameter(torch.ones(3))
        for step in range(1, PATIENCE + 5):
            gate = 1.0 if late and step > 3 else 0.0
            loss = (method.factors["A"] + gate * method.factors["B"]).sum()
            if not late and step == PATIENCE:
                with pytest.raises(TrainingError, match=r"parameter factors\.B was zero in all of the first 20 steps"):
                    step_of(method, loss, step)
                break
            step_of(method, loss, step)
