"""Gradient checkpointing: a layer's inside is computed again in the backward pass.

When a layer runs again, its attention must carry the prefix of that pass, not of a later one. transformers' own does
not know prefixes, so ours takes its place on the layers of an adapted model, in evaluation mode too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from mmpt.attention.function import carried, carry
from mmpt.attention.inject import Injection
from mmpt.utils.weak import Weak

_FLAG = "gradient_checkpointing"  # by which transformers' layers know that they are to be checkpointed


def checkpoint_layers(injection: Injection, enabled: bool = True) -> None:
    """Store only what enters each layer, of all stacks of a backbone, or everything again."""
    held: dict[nn.Module, list[nn.Module]] = {}  # the attention modules of each layer
    for site, modules in injection.modules.items():
        for layer, module in zip(injection.layers[site], modules, strict=True):
            held.setdefault(layer, []).append(module)
    for layer, modules in held.items():
        before = layer.__dict__.pop("forward", None)
        if getattr(before, "func", None) is _forward:  # what an earlier call put there
            before = before.args[-1]
        forward = partial(_forward, Weak(layer), modules, before) if enabled else before
        if forward is not None:
            # on the instance: the class, and every other model of it, stays as it is
            object.__setattr__(layer, "forward", forward)


def _forward(owner: Weak[nn.Module], modules: Sequence[nn.Module], before: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a layer by ``before``, accelerate's way into a layer of a dispatched model, or by its own forward."""
    layer: Any = owner()
    original = before or partial(type(layer).forward, layer)
    if not torch.is_grad_enabled():
        return original(*args, **kwargs)
    args = tuple(None if isinstance(value, Cache) else value for value in args)  # a cache would be filled twice
    kwargs = {name: None if isinstance(value, Cache) else value for name, value in kwargs.items()}
    prefixes = [carried(module) for module in modules]

    def run(*args: Any, **kwargs: Any) -> Any:
        now, theirs = [carried(module) for module in modules], layer.__dict__.pop(_FLAG, None)
        carry(modules, prefixes)
        try:
            return original(*args, **kwargs)
        finally:
            carry(modules, now)
            if theirs is not None:
                layer.__dict__[_FLAG] = theirs

    return checkpoint(run, *args, use_reentrant=False, **kwargs)
