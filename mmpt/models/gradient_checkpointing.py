"""Gradient checkpointing: a layer's inside is computed again in the backward pass.

When a layer runs again, its attention must carry what it did in that pass, not in a later one. transformers' own does
not know prefixes, so ours takes its place on the layers of an adapted model, in evaluation mode too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from mmpt.attention.function import carried, carry
from mmpt.attention.inject import Injection
from mmpt.attention.packing import Packing, carry_packing, packing_of
from mmpt.attention.prefix import LayerPrefix
from mmpt.utils.weak import Weak

Forward = Callable[..., Any]
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


def replaced(layer: nn.Module, change: Callable[[Forward], Forward]) -> Forward | None:
    """What a layer's ``forward`` is to be so that ``change`` applies to what runs, and runs again, in it.

    None: accelerate has a way of its own into the layer.
    """
    now = layer.__dict__.get("forward")
    if now is None:
        return change(layer.forward)
    if getattr(now, "func", None) is not _forward or now.args[-1] is not None:
        return None
    return partial(_forward, *now.args[:-1], change(partial(type(layer).forward, layer)))


def _forward(owner: Weak[nn.Module], modules: Sequence[nn.Module], before: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a layer by ``before``, accelerate's way into a layer of a dispatched model, or by its own forward."""
    layer: Any = owner()
    original = before or partial(type(layer).forward, layer)
    if not torch.is_grad_enabled():
        return original(*args, **kwargs)
    args = tuple(None if isinstance(value, Cache) else value for value in args)  # a cache would be filled twice
    kwargs = {name: None if isinstance(value, Cache) else value for name, value in kwargs.items()}
    pass_of_call = _carried(modules)

    def run(*args: Any, **kwargs: Any) -> Any:
        now, theirs = _carried(modules), layer.__dict__.pop(_FLAG, None)
        _carry(modules, *pass_of_call)
        try:
            return original(*args, **kwargs)
        finally:
            _carry(modules, *now)
            if theirs is not None:
                layer.__dict__[_FLAG] = theirs

    return checkpoint(run, *args, use_reentrant=False, **kwargs)


def _carried(modules: Sequence[nn.Module]) -> tuple[list[LayerPrefix | None], list[Packing | None]]:
    return [carried(module) for module in modules], [packing_of(module) for module in modules]


def _carry(modules: Sequence[nn.Module], prefixes: list[LayerPrefix | None], packings: list[Packing | None]) -> None:
    carry(modules, prefixes)
    carry_packing(modules, packings)
