"""Optimizers with one learning rate per parameter group, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.config.schema import OptimizerConfig


def build_optimizer(
    config: OptimizerConfig, groups: Mapping[str, Sequence[nn.Parameter]], rates: Mapping[str, float]
) -> torch.optim.Optimizer:
    """Create ``adafactor`` (without parameter scaling and relative step, as published) or ``adamw`` over groups.

    Returns:
        An optimizer whose parameter groups have their ``name`` and their learning rate before the schedule,
        ``initial_lr``.
    """
    entries = [
        {"params": list(parameters), "lr": rates[name], "initial_lr": rates[name], "name": name}
        for name, parameters in groups.items()
        if parameters
    ]
    if config.name == "adafactor":
        return Adafactor(entries, clip_threshold=config.clip_threshold, weight_decay=config.weight_decay)
    betas = (float(config.betas[0]), float(config.betas[1]))
    return torch.optim.AdamW(entries, betas=betas, eps=config.eps, weight_decay=config.weight_decay)


class Adafactor(torch.optim.Optimizer):
    """Adafactor (Shazeer and Stern, 2018) at a given learning rate, without momentum.

    The same updates as ``transformers.Adafactor(scale_parameter=False, relative_step=False)``, whose import takes
    three seconds.
    """

    decay, eps = -0.8, 1e-30  # exponent of the running average of squared gradients, and what is added to these

    def __init__(self, params: Any, clip_threshold: float = 1.0, weight_decay: float = 0.0) -> None:
        """Set the constants of the update.

        ``clip_threshold`` is the root mean square above which an update is scaled down; ``weight_decay`` is the share
        of a parameter that is subtracted in a step, times its learning rate.
        """
        super().__init__(params, {"lr": None, "weight_decay": weight_decay})
        self.clip_threshold = clip_threshold

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        assert parameter.grad is not None
        gradient, state = parameter.grad.float(), self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state |= {name: gradient.new_zeros(shape) for name, shape in averages(parameter).items()}
        state["step"] += 1
        beta = 1.0 - math.pow(float(state["step"]), self.decay)
        square = gradient.square() + self.eps
        if "exp_avg_sq_row" in state:
            row, column = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
            row.mul_(beta).add_(square.mean(dim=-1), alpha=1.0 - beta)
            column.mul_(beta).add_(square.mean(dim=-2), alpha=1.0 - beta)
            scale = (row / row.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1) * column.unsqueeze(-2).rsqrt()
        else:
            scale = state["exp_avg_sq"].mul_(beta).add_(square, alpha=1.0 - beta).rsqrt()
        update = scale.mul_(gradient)
        size = update.norm(2) / update.numel() ** 0.5  # root mean square
        update.div_((size / self.clip_threshold).clamp_(min=1.0)).mul_(group["lr"])
        values = parameter.float()  # the parameter itself where it is float32
        if group["weight_decay"]:
            values.add_(values, alpha=-group["weight_decay"] * group["lr"])
        values.sub_(update)
        if parameter.dtype != torch.float32:
            parameter.copy_(values)


def averages(parameter: Tensor) -> dict[str, tuple[int, ...]]:
    """Shapes of the averages of squared gradients that Adafactor has of a parameter, by name."""
    shape = tuple(parameter.shape)
    if len(shape) < 2:
        return {"exp_avg_sq": shape}
    return {"exp_avg_sq_row": shape[:-1], "exp_avg_sq_col": shape[:-2] + shape[-1:]}


def state_template(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """All tensors that one of our optimizers has of a parameter, by name, without their values."""
    if isinstance(optimizer, Adafactor):
        shapes, dtype = averages(parameter), torch.float32
    else:
        shapes, dtype = dict.fromkeys(("exp_avg", "exp_avg_sq"), tuple(parameter.shape)), parameter.dtype
    template = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}
    return {"step": torch.empty((), device="meta"), **template}


def rate_factor(name: str, step: int, warmup: float, total: int) -> float:
    """Factor of all learning rates after ``step`` of ``total`` steps, as in transformers' schedules of the same names.

    ``warmup`` is a share of all steps below 1, else a number of steps.
    """
    rising = math.ceil(total * warmup) if warmup < 1 else int(warmup)
    if name == "constant":
        return 1.0
    if step < rising:
        return step / max(1, rising)
    if name == "constant_with_warmup":
        return 1.0
    if name == "inverse_sqrt":
        timescale = rising or 10_000
        return 1.0 / math.sqrt((step - rising + timescale) / timescale)
    progress = (step - rising) / max(1, total - rising)
    if name == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    return max(0.0, (total - step) / max(1, total - rising))
