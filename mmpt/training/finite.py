"""Notice a loss that is not finite, without waiting for a GPU in every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmpt.errors import TrainingError
from mmpt.methods.base import Method


class FiniteWatch:
    """Notes on the device the first step whose loss is not finite; on a CPU it raises at once."""

    def __init__(self, method: Method, device: torch.device) -> None:
        """Watch the losses of a method's training on a device."""
        self.method, self.waits = method, device.type == "cpu"
        self.first_bad = torch.zeros((), dtype=torch.long, device=device)  # 0: none

    def note(self, loss: Tensor, step: int) -> None:
        """Take the loss () of a step, counted from 1; a TrainingError on a CPU where it is not finite."""
        if self.waits:
            if not torch.isfinite(loss):
                raise self._error(step, float(loss))
            return
        self.first_bad = torch.where((self.first_bad == 0) & ~torch.isfinite(loss), step, self.first_bad)

    def check(self) -> None:
        """Wait for the device, and raise a TrainingError, with the parameter groups, where a loss was not finite."""
        if not self.waits and (step := int(self.first_bad)):
            raise self._error(step, float("nan"))

    def _error(self, step: int, loss: float) -> TrainingError:
        what, groups = "parameters", self._broken(lambda parameter: parameter)
        if not groups:
            what, groups = "gradients", self._broken(lambda parameter: parameter.grad)
        return TrainingError(
            f"loss is {loss} at step {step}; {what} that are not finite are in group {', '.join(groups) or '(none)'}; "
            "the last evaluation's checkpoint stays; lower method.lr of that group, or set trainer.max_grad_norm"
        )

    def _broken(self, values: Callable[[nn.Parameter], Tensor | None]) -> list[str]:
        """The parameter groups with a value that is not finite."""
        groups = self.method.parameter_groups().items()
        present = {name: [value for one in group if (value := values(one)) is not None] for name, group in groups}
        return [name for name, found in present.items() if not all(torch.isfinite(value).all() for value in found)]
