"""Our Adafactor and schedules compute what transformers' do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmpt.config.rules import SCHEDULES
from mmpt.config.schema import OptimizerConfig
from mmpt.training.optim import build_optimizer, rate_factor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5,), (4, 6), (2, 3, 4)])
def test_adafactor_is_that_of_transformers(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    from transformers.optimization import Adafactor

    values = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape).to(dtype)
    ours, theirs = nn.Parameter(values.clone()), nn.Parameter(values.clone())
    first = build_optimizer(OptimizerConfig("adafactor", weight_decay=0.1), {"all": [ours]}, {"all": 0.3})
    settings = {"scale_parameter": False, "relative_step": False, "warmup_init": False, "weight_decay": 0.1}
    second = Adafactor([theirs], lr=0.3, **settings)
    torch.manual_seed(0)
    for _ in range(4):
        ours.grad = torch.randn(shape).to(dtype)
        theirs.grad = ours.grad.clone()
        first.step()
        second.step()
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 0.25, 3])
def test_schedules_are_those_of_transformers(name: str, warmup: float) -> None:
    from transformers.optimization import get_scheduler

    total, rising = 10, {0: 0, 0.25: 3, 3: 3}[warmup]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=rising, num_training_steps=total)
    for step in range(total):
        assert rate_factor(name, step, warmup, total) == pytest.approx(schedule.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        schedule.step()
