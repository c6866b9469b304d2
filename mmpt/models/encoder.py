"""The encoder in two parts: layers below the first trained one, whose output is a constant, and the rest.

The model's own stack runs, each time with one part of its layers; no model code is copied.

Letters: B batch, T source tokens, d model width, n layers of the lower part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt.methods.base import LayerPrompts


def lower(model: PreTrainedModel, embeddings: Tensor, mask: Tensor, layers: int) -> Tensor:
    """Hidden states entering encoder layer ``layers``, or the encoder's output where that is all of them.

    Args:
        model: An encoder-decoder of the T5 family.
        embeddings: The encoder's input (B, T, d).
        mask: (B, T), 1 where a token is.
        layers: n, at least 1.

    Returns:
        (B, T, d).
    """
    encoder: Any = model.get_encoder()
    if layers == len(encoder.block):
        whole: Tensor = encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return whole
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    with _only(encoder, slice(0, layers)):
        hook = encoder.block[-1].register_forward_hook(keep)
        try:
            encoder(inputs_embeds=embeddings, attention_mask=mask)
        finally:
            hook.remove()
    return found[0]


def upper(model: PreTrainedModel, states: Tensor, mask: Tensor, layers: int) -> Tensor:
    """The encoder's output (B, T, d), from the states (B, T, d) that :func:`lower` gives."""
    encoder: Any = model.get_encoder()
    if layers == len(encoder.block):
        return states
    owner, first = (encoder.block[index].layer[0].SelfAttention for index in (0, layers))

    def give(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        tokens = states.shape[1]
        return args, {**kwargs, "position_bias": owner.compute_bias(tokens, tokens, device=states.device)}

    # T5's first layer computes the position bias for all; umT5's layers have one each
    hook = None if first.has_relative_attention_bias else first.register_forward_pre_hook(give, with_kwargs=True)
    try:
        with _only(encoder, slice(layers, None)):
            output: Tensor = encoder(inputs_embeds=states, attention_mask=mask).last_hidden_state
    finally:
        if hook is not None:
            hook.remove()
    return output


@contextmanager
def prompted(model: PreTrainedModel, prompts: LayerPrompts, mask: Tensor) -> Iterator[None]:
    """Let every layer of the encoder have its own prompt in place of the first P states.

    Args:
        model: An encoder-decoder of the T5 family.
        prompts: What each layer gets.
        mask: (B, T) of the text behind the prompt.
    """

    def swap(layer: int) -> Any:
        def give(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            text = args[0][:, prompts.tokens :]
            return (torch.cat([prompts.at(layer, text, mask).to(text.dtype), text], dim=1), *args[1:]), kwargs

        return give

    encoder: Any = model.get_encoder()
    hooks = [
        block.register_forward_pre_hook(swap(layer), with_kwargs=True) for layer, block in enumerate(encoder.block)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _only(encoder: Any, part: slice) -> Iterator[None]:
    """Let the stack have some of its layers alone within the block."""
    layers = encoder.block
    encoder.block = layers[part]
    try:
        yield
    finally:
        encoder.block = layers
