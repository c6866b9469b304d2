"""The encoder in two parts: layers below the first trained one, whose output is a constant, and the rest.

The model's own stack runs, each time with one part of its layers; no model code is copied.

Letters: B batch, T source tokens, d model width, n layers of the lower part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt.attention.architectures import architecture_of
from mmpt.methods.base import LayerPrompts


def lower(model: PreTrainedModel, embeddings: Tensor, mask: Tensor, layers: int) -> Tensor:
    """Hidden states entering encoder layer ``layers``, or the encoder's output where that is all of them.

    Args:
        model: An encoder-decoder.
        embeddings: The encoder's input (B, T, d).
        mask: (B, T), 1 where a token is.
        layers: n, at least 1.

    Returns:
        (B, T, d).
    """
    encoder: Any = model.get_encoder()
    blocks = _blocks(model)
    if layers == len(blocks):
        whole: Tensor = encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return whole
    return below(model, "encoder", layers, {"inputs_embeds": embeddings, "attention_mask": mask})


def below(model: PreTrainedModel, site: str, layers: int, inputs: Mapping[str, Any]) -> Tensor:
    """Hidden states (B, N, d) entering layer ``layers`` of a site's stack, the encoder or the only one.

    Args:
        model: The model.
        site: ``encoder`` or ``self``.
        layers: n, at least 1.
        inputs: What the encoder takes, or the base model.
    """
    stack: Any = model.get_encoder() if site == "encoder" else model.base_model
    states: list[Tensor] = []

    def record(module: nn.Module, args: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    with only(model, site, slice(0, layers)) as part, part[-1].register_forward_hook(record):
        stack(**inputs)
    return states[0]


def upper(model: PreTrainedModel, states: Tensor, mask: Tensor, layers: int) -> Tensor:
    """The encoder's output (B, T, d), from the states (B, T, d) that :func:`lower` gives."""
    encoder: Any = model.get_encoder()
    blocks = _blocks(model)
    if layers == len(blocks):
        return states

    bias = _shared_bias(model, states, layers)

    def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        # whatever the stack does to embeddings before its first layer is done already
        return (states, *args[1:]) if bias is None else (states, args[1], bias, *args[3:])

    with blocks[layers].register_forward_pre_hook(enter), only(model, "encoder", slice(layers, None)):
        output: Tensor = encoder(inputs_embeds=states, attention_mask=mask).last_hidden_state
    return output


def _shared_bias(model: PreTrainedModel, states: Tensor, layers: int) -> Tensor | None:
    """What T5's first layer computes for all: the position bias. None where a layer has its own, or there is none."""
    if not architecture_of(model.config.model_type).relative_bias:
        return None
    owner, first = (_blocks(model)[index].layer[0].SelfAttention for index in (0, layers))
    if first.has_relative_attention_bias:
        return None
    bias: Tensor = owner.compute_bias(states.shape[1], states.shape[1], device=states.device)
    return bias


def _blocks(model: PreTrainedModel) -> Any:
    """The encoder's list of layers."""
    return architecture_of(model.config.model_type).layers(model, "encoder")


@contextmanager
def prompted(model: PreTrainedModel, prompts: LayerPrompts, mask: Tensor) -> Iterator[None]:
    """Let every layer of the encoder have its own prompt instead of the first P states.

    Args:
        model: An encoder-decoder.
        prompts: What each layer gets.
        mask: (B, T) of the text behind the prompt.
    """

    def swap(layer: int) -> Any:
        def give(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            text = (args[0] if args else kwargs["hidden_states"])[:, prompts.tokens :]
            states = torch.cat([prompts.at(layer, text, mask).to(text.dtype), text], dim=1)
            return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

        return give

    with ExitStack() as hooks:
        for layer, block in enumerate(_blocks(model)):
            hooks.enter_context(block.register_forward_pre_hook(swap(layer), with_kwargs=True))
        yield


class _Constant(nn.Module):
    """A layer that does not run: it returns given states."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return self.states


@contextmanager
def resumed(model: PreTrainedModel, site: str, states: Tensor, layers: int) -> Iterator[None]:
    """Let a pass of a site's stack begin with the states (B, N, d) that enter layer ``layers``, within the block.

    The layers below keep their indices: some stacks choose each layer's mask by its number.
    """
    with only(model, site, slice(layers, None)) as upper:
        stack, name = _stack(model, site)
        setattr(stack, name, nn.ModuleList([*[_Constant(states)] * layers, *upper]))
        yield


def _stack(model: PreTrainedModel, site: str) -> tuple[nn.Module, str]:
    """What holds a site's list of layers, and under which name."""
    path, _, name = architecture_of(model.config.model_type).sites[site].layers.rpartition(".")
    return model.base_model.get_submodule(path), name


@contextmanager
def only(model: PreTrainedModel, site: str, part: slice) -> Iterator[Any]:
    """Let the stack of a site have some of its layers alone within the block; gives them."""
    stack, name = _stack(model, site)
    layers: Any = getattr(stack, name)
    setattr(stack, name, layers[part])
    try:
        yield layers[part]
    finally:
        setattr(stack, name, layers)
