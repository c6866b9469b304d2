"""Whether training reaches every declared parameter. A training loop calls :func:`check_gradients` after each backward.

A parameter without any gradient is wrong from the first step: it is detached, or nothing is made of it. A gradient of
zero may be right at first (LoRA's A while B is zero, a prefix behind a closed gate), but not for long.
"""

from __future__ import annotations

import torch

from mmpt.errors import TrainingError
from mmpt.methods.base import Method

PATIENCE = 20  # steps after which a gradient that was always zero is a mistake
_SILENT = "_mmpt_silent"  # a method's attribute: names of parameters whose gradient was zero in every step so far


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
