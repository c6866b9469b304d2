"""What an adapted model trains: counts to print, and groups for an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmpt.errors import ConfigError, nearest
from mmpt.models.adapters import adapters_of
from mmpt.models.quantization import numbers


@dataclass(frozen=True)
class TrainableParameters:
    """What is trained of a model.

    Attributes:
        names: As in ``model.named_parameters()``.
        groups: Numbers in each learning-rate group of the active adapter.
        trainable: Numbers that are trained.
        total: Numbers of the whole model, its adapters included.
    """

    names: tuple[str, ...]
    groups: dict[str, int]
    trainable: int
    total: int

    def __str__(self) -> str:
        """One line, as peft prints it, with the groups."""
        share = 100 * self.trainable / self.total
        groups = ", ".join(f"{name} {count:,}" for name, count in self.groups.items())
        line = f"trainable params: {self.trainable:,} || all params: {self.total:,} || trainable%: {share:.4f}"
        return f"{line} ({groups})" if groups else line


def trainable_parameters(model: nn.Module) -> TrainableParameters:
    """Count what an adapted model trains; ``print`` of it gives one line.

    Raises:
        AdapterError: The model has no adapter.
    """
    named = dict(model.named_parameters())
    names = tuple(name for name, value in named.items() if value.requires_grad)
    groups = {name: sum(value.numel() for value in group) for name, group in _groups(model).items()}
    total = sum(map(numbers, named.values()))
    return TrainableParameters(names, groups, sum(named[name].numel() for name in names), total)


def parameter_groups(model: nn.Module, lr: float | Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameter groups for any optimizer of torch: ``torch.optim.AdamW(mmpt.parameter_groups(model, lr=0.3))``.

    Args:
        model: An adapted model, whose active adapter is trained.
        lr: One learning rate, or one for each group: ``{"prefix": 0.05, "masks": 0.05, "router": 0.0005}``.

    Returns:
        Groups with ``params``, ``lr`` and ``name``.

    Raises:
        AdapterError: The model has no adapter.
        ConfigError: A rate is no positive number, a group has none, or there is no such group.
    """
    groups = _groups(model)
    rates = dict(lr) if isinstance(lr, Mapping) else dict.fromkeys(groups, lr)
    problems = [
        f"lr has no group {name!r}; the groups are {', '.join(groups)}{nearest(name, groups)}"
        for name in rates
        if name not in groups
    ]
    problems += [f"lr gives no rate for group {name!r}; add it" for name in groups if name not in rates]
    for name, rate in rates.items():
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < float("inf"):
            problems.append(f"lr of {name!r} is {rate!r}; give a positive number")
    if problems:
        raise ConfigError(problems)
    return [{"params": group, "lr": float(rates[name]), "name": name} for name, group in groups.items()]


def _groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    adapters = adapters_of(model)
    if adapters.active is None:
        return {}
    groups = adapters.get(adapters.active).parameter_groups()
    return {name: group for name, group in groups.items() if group}
