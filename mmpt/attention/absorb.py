"""Absorbed cross attention: the encoder's output is never projected to keys and values.

A decoder of a classification task has few queries (U about 4) and many source tokens (T about 100). Projecting the
source costs 4·T·d·H·k operations in every layer. Folding the projections into the query side instead,

    scores_h = (q_h·W_K,h)·Xᵀ,    context_h = (softmax(scores_h)·X)·W_V,hᵀ,

is the same function with 4·U·d·H·k + 4·U·H·T·d operations. Exact up to rounding; gradients flow as before.

Letters: B batch, U queries, T source tokens, d model width, H heads, k head width, P prefix tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.attention.architectures import Architecture
from mmpt.attention.function import carried, pop_hidden
from mmpt.attention.inject import CACHE
from mmpt.attention.packing import packing_of
from mmpt.attention.prefix import LayerPrefix, times
from mmpt.errors import ModelError
from mmpt.utils.weak import Weak

ROWS = 8  # of a slice of the batch with a length of its own
MIN_SAVED = 0.1  # share of the tokens that cutting the batch must save
_CHUNKS = "_mmpt_chunks"  # an attribute of the states that were cut


def pays(queries: int, tokens: int, width: int, heads: int, head_dim: int) -> bool:
    """Whether absorbing takes fewer operations than projecting, from the shapes U, T, d, H, k."""
    inner = heads * head_dim
    projected = tokens * width * inner + queries * tokens * inner
    absorbed = queries * width * inner + queries * heads * tokens * width
    return absorbed < projected


def absorbs(modules: Sequence[nn.Module]) -> bool:
    """Whether cross-attention modules say what they read, without which they cannot absorb it."""
    return all("key_value_states" in inspect.signature(type(module).forward).parameters for module in modules)


def install(modules: Sequence[nn.Module], mode: str, architecture: Architecture) -> None:
    """Let cross-attention modules absorb.

    ``mode`` is ``auto`` (where it pays), ``absorbed`` (except for generation with a key cache) or ``projected``.

    Raises:
        ModelError: ``absorbed`` is asked of attention that does not say what it reads.
    """
    if not absorbs(modules):
        if mode == "absorbed":
            raise ModelError(
                f"model.cross_attention=absorbed: {type(modules[0]).__name__} is not known to absorb (t5, mt5, bart "
                "and pegasus are); set model.cross_attention=auto"
            )
        return
    for module in modules:
        module.__dict__.pop("forward", None)  # what an earlier call put there
        if mode != "projected":
            # on the instance: the class, and every other model of it, stays as it is
            object.__setattr__(module, "forward", partial(_forward, Weak(module), architecture, mode == "absorbed"))


def _forward(owner: Weak[nn.Module], names: Architecture, always: bool, *args: Any, **kwargs: Any) -> Any:
    """Cross attention: absorbed where that is right and pays, else the model's own."""
    module: Any = owner()
    states, caches = kwargs.get("key_value_states"), kwargs.get(CACHE) is not None
    # an adapter may have wrapped the layers
    key, value = (getattr(module, name) for name in (names.key, names.value))
    plain = all(type(layer) is nn.Linear for layer in (key, value))
    if states is not None and plain and not caches and not kwargs.get("output_attentions"):
        hidden = args[0] if args else kwargs["hidden_states"]
        (tokens, width), (heads, head_dim) = states.shape[1:], names.width_of_heads(module)
        packing = packing_of(module)
        queries = hidden.shape[1] if packing is None else packing.shape[1]
        if always or pays(queries, tokens, width, heads, head_dim):
            with align_module_device(key), align_module_device(value):  # their weights are read, which may lie on disk
                if "position_bias" in kwargs:  # T5 hands its bias on, which is zero here
                    return attend(module, names, hidden, states, kwargs.get("mask")), kwargs["position_bias"], None
                return attend(module, names, hidden, states, kwargs.get("attention_mask")), None
    return type(module).forward(module, *args, **kwargs)


def attend(module: Any, names: Architecture, hidden: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Cross attention with the module's weights and prefix.

    Biases: that of keys adds q·b_K to every token of the source, and none to the prefix, whose keys are as they are;
    that of values adds b_V, times the share of attention that the source gets.

    Args:
        module: Has the four projections, ``dropout``, and ``scaling`` where scores are scaled.
        names: The model's architecture, which names its projections.
        hidden: Decoder states (B, U, d), or (1, n, d) where they are packed.
        states: Encoder output X (B, T, d).
        mask: (B, 1, U or 1, T), True where a token may be attended, or a float to be added; None: all.

    Returns:
        As ``hidden``.
    """
    packing = packing_of(module)
    heads, value = names.width_of_heads(module)[0], getattr(module, names.value)
    query, scaling = getattr(module, names.query)(hidden), getattr(module, "scaling", 1.0)
    query = query if scaling == 1.0 else query * scaling
    if packing is not None:
        query, mask = packing.unpack(query), packing.source(mask)
    query = query.unflatten(-1, (heads, -1)).transpose(1, 2)
    prefix = carried(module, query.device)
    if prefix is not None and prefix.attend is not None:
        hidden = pop_hidden(module)
    separate = prefix is not None and prefix.output_gate is not None  # it takes no part in the softmax
    seen, shares, weights = _attend_source(module, names, hidden, query, None if separate else prefix, states, mask)
    context = times(seen, value.weight.unflatten(0, (1, heads, -1)).transpose(2, 3))  # (B, H, U, k)
    if shares is not None:
        context = context + shares * value.bias.view(heads, 1, -1)
    if prefix is not None:
        context = context + (prefix.separate(query, 1.0) if separate else prefix.read(weights))
    rows = context.transpose(1, 2).flatten(2)
    output: Tensor = getattr(module, names.output)(rows if packing is None else packing.pack(rows))
    return output


def _attend_source(
    module: Any,
    names: Architecture,
    hidden: Tensor,
    query: Tensor,
    prefix: LayerPrefix | None,
    states: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Attention of scaled queries (B, H, U, k) to prefix and source; the other arguments are those of :func:`attend`.

    Returns:
        What they see of the source (B, H, U, d), its share of their attention (B, H, U, 1) where values have a bias,
        weights of the prefix.
    """
    biased = getattr(module, names.value).bias is not None
    key, (batch, heads, queries, _) = getattr(module, names.key), query.shape
    folded = times(query, key.weight.unflatten(0, (1, heads, -1))).flatten(1, 2)  # (B, H·U, d)
    shift = None if key.bias is None else times(query, key.bias.view(1, heads, -1, 1))  # (B, H, U, 1)
    cut = _chunks(mask, states)
    sizes = [len(source) for _, source, _ in cut]
    nothing: list[Tensor | None] = [None] * len(cut)
    before = None if prefix is None else prefix.scores(query)
    fronts, shifts = (nothing if part is None else part.split(sizes) for part in (before, shift))
    seen, shares, weights = [], [], []
    parts = folded.split(sizes)  # not slices: the gradient of each would be as large as the whole
    for (rows, source, added), part, front, bias in zip(cut, parts, fronts, shifts, strict=True):
        tokens = source.shape[1]
        scores = (part @ source.transpose(1, 2)).unflatten(1, (heads, queries))  # (B', H, U, T')
        scores = scores if bias is None else scores + bias
        scores = scores if added is None else scores + added.to(scores.dtype)
        if prefix is None or front is None:
            probs = torch.softmax(scores, dim=-1)
        else:
            probs = prefix.weights(torch.cat([front, scores], dim=-1), hidden, rows, batch)
        probs = F.dropout(probs, module.dropout, module.training)
        before_part, seen_part = probs.split([probs.shape[-1] - tokens, tokens], dim=-1)
        weights.append(before_part)
        seen.append(seen_part.flatten(1, 2) @ source)  # (B', H·U, d)
        if biased:
            shares.append(seen_part.sum(dim=-1, keepdim=True))
    return torch.cat(seen).unflatten(1, (heads, queries)), torch.cat(shares) if biased else None, torch.cat(weights)


def _chunks(mask: Tensor | None, states: Tensor) -> Sequence[tuple[slice, Tensor, Tensor | None]]:
    """Slices of rows of a batch, their source as far as any of them may see it (B', T', d), and a mask to be added.

    In half precision the sources are contiguous, because products with slices of rows would copy them; constant states
    keep them for the other layers, which read the same states and mask. Float32 has the bits of the slices.
    """
    known: Any = getattr(states, _CHUNKS, None)
    if known is not None and known[0] is mask:
        chunks: Sequence[tuple[slice, Tensor, Tensor]] = known[1]
        return chunks
    cut = None if mask is None else _cut(mask, *states.shape[:2])
    added = _as_numbers(mask, states.dtype)
    if added is None or cut is None:
        return [(slice(None), states, added)]
    chunks = [(rows, states[rows, :tokens], added[rows, ..., :tokens]) for rows, tokens in cut]
    if states.dtype != torch.float32:
        copied = torch.contiguous_format  # never a view, which would hold the states that hold it
        chunks = [(rows, source.clone(memory_format=copied), part) for rows, source, part in chunks]
        if not states.requires_grad:
            setattr(states, _CHUNKS, (mask, chunks))
    return chunks


def _as_numbers(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask that is added: a bool becomes 0 where it is True, else -inf.

    Filling scores would take more operations, and one more for the gradient.
    """
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def _cut(mask: Tensor, batch: int, longest: int) -> list[tuple[slice, int]] | None:
    """Cut a batch so that few padded tokens are multiplied: slices of rows, and the tokens that any of them may see.

    Batches come sorted by length, so a few slices leave little padding. None: the batch stays whole, as always on a
    GPU, where to read the lengths would wait for the device.
    """
    if mask.shape[0] != batch or batch < 2 * ROWS or mask.device.type != "cpu":
        return None
    allowed = (mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2).flatten(1, -2).any(dim=1)
    lengths = longest - allowed.flip(-1).int().argmax(dim=-1)  # rows without any token count as whole
    firsts = range(0, batch, ROWS)
    cut = [(slice(at, min(at + ROWS, batch)), int(lengths[at : at + ROWS].max())) for at in firsts]
    saved = 1 - sum(tokens for _, tokens in cut) / (len(cut) * longest)
    return cut if saved > MIN_SAVED else None
