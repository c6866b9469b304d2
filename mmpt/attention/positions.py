"""Positions with a prefix: of a decoder-only model's text (``method.layout=peft``), and of a prefix in T5 (``paper``).

peft gives a prefix to the model as keys and values that are there already, so the model begins to count at P, the
number of prefix tokens. In the published layout the prefix takes positions 0..P-1, and T5's relative position bias
applies to it. Layout ``per_layer`` leaves the text where it is without a prefix, at 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_SHIFT = "_mmpt_shift"  # where the module that takes positions carries what is added to them
_HOOK = "_mmpt_shift_hook"
_BIAS = "_mmpt_bias_owner"


def install(module: nn.Module) -> None:
    """Let a module that takes positions add to them what :func:`shift` sets; a second call changes nothing."""
    if not hasattr(module, _SHIFT):
        shift(module, 0)
        object.__setattr__(module, _HOOK, module.register_forward_pre_hook(_shifted, with_kwargs=True))


def remove(module: nn.Module) -> None:
    """Undo :func:`install`."""
    if (hook := module.__dict__.pop(_HOOK, None)) is not None:
        hook.remove()
        module.__dict__.pop(_SHIFT)


def shift(module: nn.Module, count: int) -> None:
    """Add ``count`` to all positions of the coming passes."""
    object.__setattr__(module, _SHIFT, count)  # a value of one pass, never part of the state


def _shifted(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    """Positions are the argument ``position_ids``, the second one of rotary embeddings, or the only one."""
    count = getattr(module, _SHIFT)
    if count == 0:
        return None
    if kwargs.get("position_ids") is not None:
        return args, {**kwargs, "position_ids": kwargs["position_ids"] + count}
    index = 1 if len(args) > 1 else 0
    return (*args[:index], args[index] + count, *args[index + 1 :]), kwargs


def rotated(module: nn.Module, keys: Tensor, count: int, layer_type: str | None = None) -> Tensor:
    """Keys (…, P, k) as if each lay ``count`` positions further on, by a model's rotary embedding.

    ``layer_type`` is used where the angles differ between types of layers.
    """
    rotary: Any = module
    ids = torch.full((1, 1), count, device=keys.device)
    by_type = "layer_type" in inspect.signature(rotary.forward).parameters
    cos, sin = rotary(keys, ids, layer_type) if by_type else rotary(keys, ids)  # (1, 1, k)
    scale = (cos.square() + sin.square()).sqrt()  # long-context models scale what is rotated, but no prefix
    half = keys.shape[-1] // 2
    turned = torch.cat([-keys[..., half:], keys[..., :half]], dim=-1)
    return keys * (cos / scale).squeeze(0) + turned * (sin / scale).squeeze(0)


def remember_bias(modules: Sequence[nn.Module]) -> None:
    """Let every decoder self-attention have the owner of the relative position bias: itself, or the first layer."""
    for module in modules:
        owner = None if getattr(module, "has_relative_attention_bias", False) else modules[0]
        object.__setattr__(module, _BIAS, owner)  # a plain reference: the owner must not become a submodule


def prefix_bias(
    module: nn.Module, *, queries: int, past: int, length: int, device: torch.device | None = None
) -> Tensor:
    """Position bias (1, H, Q, P), float, of a prefix at positions 0..P-1, where the text starts at position P.

    ``module`` is a decoder self-attention that :func:`remember_bias` has seen; ``past`` tokens were generated before
    the first query; ``device`` is the query's, where the owner's weights may lie elsewhere.
    """
    owner: Any = getattr(module, _BIAS) or module
    bias: Tensor = owner.compute_bias(queries, length, device=device, past_seen_tokens=past + length)
    return bias
