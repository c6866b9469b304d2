"""Optimizers with one learning rate a parameter group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers.optimization import Adafactor

from mmpt.config.schema import OptimizerConfig


def build_optimizer(
    config: OptimizerConfig, groups: Mapping[str, Sequence[nn.Parameter]], rates: Mapping[str, float]
) -> torch.optim.Optimizer:
    """Create the optimizer over a method's parameter groups.

    Args:
        config: ``adafactor`` (without parameter scaling and relative step, as published) or ``adamw``.
        groups: Parameters by group.
        rates: Learning rate by group.

    Returns:
        An optimizer whose parameter groups carry their ``name``.
    """
    entries = [{"params": list(found), "lr": rates[name], "name": name} for name, found in groups.items() if found]
    if config.name == "adafactor":
        return Adafactor(
            entries,
            lr=max(rates.values()),
            clip_threshold=config.clip_threshold,
            scale_parameter=False,
            relative_step=False,
            warmup_init=False,
            weight_decay=config.weight_decay,
        )
    betas = (float(config.betas[0]), float(config.betas[1]))
    return torch.optim.AdamW(
        entries, lr=max(rates.values()), betas=betas, eps=config.eps, weight_decay=config.weight_decay
    )
