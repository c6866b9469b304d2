"""What stops a training that fails: a loss that is not finite, or a parameter that training does not reach.

A parameter without any gradient is wrong from the first step: it is detached, or nothing is made of it. A gradient of
zero may be right at first (LoRA's A while B is zero, a prefix behind a closed gate), but not for long.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmpt.errors import TrainingError
from mmpt.methods.base import Method

PATIENCE = 20  # steps after which a gradient that was always zero is a mistake
_REMEDY = "the last evaluation's checkpoint stays; lower method.lr of that group, or set trainer.max_grad_norm"
_SILENT = "_mmpt_silent"  # a method's attribute: names of parameters whose gradient was zero in every step so far


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

    def check_parameters(self, step: int) -> None:
        """The same, and where a parameter is not finite after a step: it reads them all, so not at every log line."""
        self.check()
        if groups := self._broken(lambda parameter: parameter):
            raise TrainingError(f"after step {step} parameters are not finite, in group {', '.join(groups)}; {_REMEDY}")

    def _error(self, step: int, loss: float) -> TrainingError:
        what, groups = "parameters", self._broken(lambda parameter: parameter)
        if not groups:
            what, groups = "gradients", self._broken(lambda parameter: parameter.grad)
        return TrainingError(
            f"loss is {loss} at step {step}; {what} that are not finite are in group {', '.join(groups) or '(none)'}; "
            f"{_REMEDY}"
        )

    def _broken(self, values: Callable[[nn.Parameter], Tensor | None]) -> list[str]:
        """The parameter groups with a value that is not finite."""
        groups = self.method.parameter_groups().items()
        present = {name: [value for one in group if (value := values(one)) is not None] for name, group in groups}
        return [name for name, found in present.items() if not all(torch.isfinite(value).all() for value in found)]


def check_gradients(method: Method, step: int) -> None:
    """Stop a run that cannot train what it declares.

    Call it after every backward pass and before gradients are cleared; once nothing is left to check, it costs nothing.
    Steps are counted from 1; a resumed run may start anywhere.

    Raises:
        TrainingError: A parameter got no gradient in the first step that is seen, or only zeros in ``PATIENCE`` steps.
    """
    if not method.NEEDS_EVERY_GRADIENT:
        return
    first = _SILENT not in method.__dict__
    silent: dict[str, int] = method.__dict__.get(_SILENT, {name: 0 for name, _ in method.named_parameters()})
    if not silent:
        return
    parameters = dict(method.named_parameters())
    who = f"method={method.options.name}"
    gradients = {name: parameters[name].grad for name in silent}
    if first and (missing := [name for name, gradient in gradients.items() if gradient is None]):
        raise TrainingError(
            f"{who}: parameter {missing[0]} got no gradient in step {step}: nothing that the method adds to the pass "
            "depends on it (it is detached or unused); mmpt methods check says more"
        )
    flags = [torch.zeros(()) if gradient is None else gradient.any() for gradient in gradients.values()]
    moved = torch.stack([flag.to(flags[0].device, torch.bool) for flag in flags]).tolist()  # one wait for a GPU
    silent = {name: silent[name] + 1 for name, moves in zip(gradients, moved, strict=True) if not moves}
    object.__setattr__(method, _SILENT, silent)
    if late := [name for name, steps in silent.items() if steps >= PATIENCE]:
        raise TrainingError(
            f"{who}: the gradient of parameter {late[0]} was zero in all of the first {PATIENCE} steps, so it is never "
            "trained; mmpt methods check says more"
        )
