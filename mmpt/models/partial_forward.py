"""One part of a stack runs: the layers below the first trained one, whose output is a constant, or the rest.

Of the last layer, only the states that the head reads are computed. The model's own stack runs: layers that are to be
skipped return what they are given, and the last layer is called with fewer states. No model code is copied.

Letters: B batch, N states of a row, W of them that are wanted, d model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt.attention.architectures import architecture_of
from mmpt.attention.function import NarrowedError, narrow
from mmpt.models.gradient_checkpointing import replaced
from mmpt.models.insertion import gathered


def below(model: PreTrainedModel, site: str, count: int, inputs: Mapping[str, Any]) -> Tensor:
    """Hidden states (B, N, d) entering layer ``count``, from 1, of the stack of site ``encoder`` or ``self``.

    ``inputs`` is what the encoder takes, or the base model.
    """
    stack: Any = model.get_encoder() if site == "encoder" else model.base_model
    layers, outputs = _layers(model, site), []
    with (
        layers[count - 1].register_forward_hook(lambda layer, args, output: outputs.append(output)),
        _skipped(layers[count:], lambda: outputs[0]),
    ):
        stack(**inputs)
    states: Tensor = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    return states.to(inputs["inputs_embeds"].device)


@contextmanager
def resumed(model: PreTrainedModel, site: str, states: Tensor, count: int) -> Iterator[None]:
    """Let passes of a site's stack begin with the states (B, N, d) that enter layer ``count``, within the block."""
    layers = _layers(model, site)
    bias = _shared_bias(model, layers, states, count)
    output = states if bias is None else (states, bias, None)  # as T5's layers return it
    with _skipped(layers[:count], lambda: output):
        yield


@contextmanager
def only_last(model: PreTrainedModel, site: str, wanted: Tensor) -> Iterator[None]:
    """Let the last layer of a stack compute only some states, with the indices ``wanted`` (B, W), within the block.

    The indices of a row are all different. All states give their keys and values, but the rest of the layer (queries,
    what follows attention) is computed for the wanted ones alone. They have the same values up to rounding, and the
    others are zero. The layer computes all where accelerate runs it in its own way, and while torch compiles.
    """
    layer = _layers(model, site)[-1]
    attention = layer.get_submodule(architecture_of(model.config.model_type).sites[site][1])
    forward = replaced(layer, lambda whole: partial(_narrowed, whole, attention, wanted))
    if forward is None or torch.compiler.is_compiling():
        yield
        return
    with _running(forward, [layer]):
        yield


def _narrowed(
    whole: Callable[..., Any], attention: nn.Module, wanted: Tensor, states: Tensor, *args: Any, **kwargs: Any
) -> Any:
    """The output of a layer whose forward is ``whole``, zero where it is not wanted."""
    with narrow(attention, wanted):
        with suppress(NarrowedError):  # the attention has all keys and values then
            whole(states, *args, **kwargs)
        few: Any = _wanted((states, *args), wanted)
        output = whole(*few, **{name: _wanted(value, wanted) for name, value in kwargs.items()})
    few, rest = (output[0], output[1:]) if isinstance(output, tuple) else (output, None)
    full = few.new_zeros(states.shape).scatter(1, wanted.unsqueeze(-1).expand_as(few), few)
    return full if rest is None else (full, *rest)


def _wanted(value: Any, wanted: Tensor) -> Any:
    """The wanted ones of a layer's states (B, N, d), or of its rotations (B or 1, N, k)."""
    if isinstance(value, tuple):
        return tuple(_wanted(part, wanted) for part in value)
    if not isinstance(value, Tensor) or value.dim() != 3:
        return value
    return gathered(value.expand(len(wanted), -1, -1), wanted)


def _skipped(layers: Sequence[nn.Module], output: Callable[[], Any]) -> AbstractContextManager[None]:
    """Let layers return ``output()`` instead of running, within the block."""
    return _running(lambda *_, **__: output(), layers)


@contextmanager
def _running(forward: Callable[..., Any], layers: Sequence[nn.Module]) -> Iterator[None]:
    """Let layers run ``forward`` instead of their own, within the block."""
    before = [layer.__dict__.get("forward") for layer in layers]
    for layer in layers:
        object.__setattr__(layer, "forward", forward)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.__dict__["forward"]
            if own is not None:  # gradient checkpointing's
                object.__setattr__(layer, "forward", own)


def _shared_bias(model: PreTrainedModel, layers: Any, states: Tensor, count: int) -> Tensor | None:
    """What T5's first layer computes for all: the position bias. None where a layer has its own, or there is none."""
    if not architecture_of(model.config.model_type).relative_bias:
        return None
    owner, first = (layers[index].layer[0].SelfAttention for index in (0, count))
    if first.has_relative_attention_bias:
        return None
    bias: Tensor = owner.compute_bias(states.shape[1], states.shape[1], device=states.device)
    return bias


def _layers(model: PreTrainedModel, site: str) -> Any:
    return architecture_of(model.config.model_type).layers(model, site)
