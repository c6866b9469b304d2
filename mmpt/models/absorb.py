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
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.errors import ModelError
from mmpt.models.inject import LayerPrefix, carried, for_batch, query_gates

ROWS = 8  # of a slice of the batch with a length of its own
WORTH = 0.1  # share of the tokens that cutting the batch must spare


def pays(queries: int, tokens: int, width: int, heads: int, head_dim: int) -> bool:
    """Whether absorbing takes fewer operations than projecting, from the shapes U, T, d, H, k."""
    inner = heads * head_dim
    projected = tokens * width * inner + queries * tokens * inner
    absorbed = queries * width * inner + queries * heads * tokens * width
    return absorbed < projected


def install(modules: Sequence[nn.Module], wish: str) -> None:
    """Let cross-attention modules absorb.

    Args:
        modules: T5's ``EncDecAttention`` modules.
        wish: ``auto`` (where it pays), ``absorbed`` (but for generation with a key cache), ``projected``.

    Raises:
        ModelError: ``absorbed`` is asked of another architecture's attention.
    """
    if not all("key_value_states" in inspect.signature(type(module).forward).parameters for module in modules):
        if wish == "absorbed":
            raise ModelError(
                f"model.cross_attention=absorbed: {type(modules[0]).__name__} isn't T5's attention (t5 and mt5); set "
                "model.cross_attention=auto"
            )
        return
    for module in modules:
        module.__dict__.pop("forward", None)  # what an earlier call put there
        if wish != "projected":
            # on the instance: the class, and every other model of it, stays as it is
            object.__setattr__(module, "forward", partial(_forward, module, module.forward, wish == "absorbed"))


def _forward(
    module: Any,
    original: Any,
    always: bool,
    hidden_states: Tensor,
    mask: Tensor | None = None,
    key_value_states: Tensor | None = None,
    position_bias: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> Any:
    """Cross attention of T5: absorbed where that is right and pays, else the model's own."""
    plain = type(module.k) is nn.Linear and type(module.v) is nn.Linear  # an adapter may have wrapped them
    if key_value_states is not None and past_key_values is None and plain and not kwargs.get("output_attentions"):
        queries, (tokens, width) = hidden_states.shape[1], key_value_states.shape[1:]
        if always or pays(queries, tokens, width, module.n_heads, module.key_value_proj_dim):
            return attend(module, hidden_states, key_value_states, mask), position_bias, None
    return original(
        hidden_states,
        mask=mask,
        key_value_states=key_value_states,
        position_bias=position_bias,
        past_key_values=past_key_values,
        **kwargs,
    )


def attend(module: Any, hidden: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Cross attention with the module's weights and prefix.

    Args:
        module: Has ``q``, ``k``, ``v``, ``o``, ``n_heads``, ``key_value_proj_dim``, ``dropout``; scores aren't scaled.
        hidden: Decoder states (B, U, d).
        states: Encoder output X (B, T, d).
        mask: (B, 1, U or 1, T), True where a token may be attended, or a float to be added; None: all.

    Returns:
        (B, U, d).
    """
    batch, queries, _ = hidden.shape
    heads, width = module.n_heads, states.shape[2]
    query = module.q(hidden).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, H, U, k)
    fold_key, fold_value = (weight.weight.unflatten(0, (heads, -1)) for weight in (module.k, module.v))  # (H, k, d)
    folded = _per_head(query, fold_key).reshape(batch, heads * queries, width)
    prefix = carried(module)
    apart = prefix is not None and prefix.output_gate is not None
    before = None if prefix is None or apart else _prefix_scores(query, prefix)  # (B, H, U, P)
    gates = None if prefix is None else query_gates(module, prefix)  # (B, 1, U, P)
    before = before if before is None or gates is None else before * gates
    seen, weights = [], []
    cut = _chunks(mask, *states.shape[:2])
    sizes = [rows.stop - rows.start for rows, _ in cut]
    parts = folded.split(sizes)  # not slices: the gradient of each would be as large as the whole
    fronts = [None] * len(cut) if before is None else before.split(sizes)
    for (rows, tokens), part, front in zip(cut, parts, fronts, strict=True):
        source = states[rows, :tokens]
        scores = (part @ source.transpose(1, 2)).unflatten(1, (heads, queries))  # (B', H, U, T')
        if mask is not None:
            allowed = mask[rows, ..., :tokens]
            scores = scores.masked_fill(~allowed, float("-inf")) if allowed.dtype == torch.bool else scores + allowed
        if front is not None:
            scores = torch.cat([front, scores], dim=-1)
        probs = F.dropout(torch.softmax(scores, dim=-1), module.dropout, module.training)
        before_part, seen_part = probs.split([scores.shape[-1] - tokens, tokens], dim=-1)
        weights.append(before_part)
        seen.append(seen_part.flatten(1, 2) @ source)  # (B', H·U, d)
    context = _per_head(torch.cat(seen).view(batch, heads, queries, width), fold_value.transpose(1, 2))  # (B, H, U, k)
    if prefix is not None:
        taken = torch.cat(weights) if gates is None else torch.cat(weights) * gates
        context = context + (prefix.apart(query, 1.0) if apart else _prefix_context(taken, prefix))
    output: Tensor = module.o(context.transpose(1, 2).reshape(batch, queries, -1))
    return output


def _prefix_scores(query: Tensor, prefix: LayerPrefix) -> Tensor:
    """Scores (B, H, U, P) of queries (B, H, U, k) for a prefix."""
    scores = _times(query, prefix.key.transpose(2, 3))
    if prefix.key_gate is not None:
        scores = scores * for_batch(prefix.key_gate, query.shape[0])[:, :, None].to(scores.dtype)
    if prefix.real is not None:
        scores = scores.masked_fill(~for_batch(prefix.real, query.shape[0])[:, None, None], float("-inf"))
    return scores


def _prefix_context(weights: Tensor, prefix: LayerPrefix) -> Tensor:
    """What attention weights (B, H, U, P) take from a prefix, (B, H, U, k)."""
    if prefix.value_gate is not None:
        weights = weights * for_batch(prefix.value_gate, weights.shape[0])[:, :, None].to(weights.dtype)
    return _times(weights, prefix.value)


def _chunks(mask: Tensor | None, batch: int, longest: int) -> list[tuple[slice, int]]:
    """Cut a batch so that few padded tokens are multiplied: slices of rows, and the tokens that any of them may see.

    Batches come sorted by length, so a few slices leave little padding. On a GPU the batch stays whole: to read the
    lengths would wait for the device.
    """
    whole = [(slice(0, batch), longest)]
    if mask is None or mask.shape[0] != batch or batch < 2 * ROWS or mask.device.type != "cpu":
        return whole
    allowed = (mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2).flatten(1, -2).any(dim=1)
    lengths = longest - allowed.flip(-1).int().argmax(dim=-1)  # rows without any token count as whole
    firsts = range(0, batch, ROWS)
    cut = [(slice(at, min(at + ROWS, batch)), int(lengths[at : at + ROWS].max())) for at in firsts]
    spared = 1 - sum(tokens for _, tokens in cut) / (len(cut) * longest)
    return cut if spared > WORTH else whole


def _times(left: Tensor, right: Tensor) -> Tensor:
    """Rows (B, H, U, n) times (G, H, n, m), as (B, H, U, m); G divides B. Broadcasting would copy ``right`` B times."""
    batch, heads, queries, width = left.shape
    right = right.to(left.dtype)
    groups = right.shape[0]
    if groups == batch:
        return left @ right
    rows = left.view(groups, -1, heads, queries, width).transpose(1, 2)  # (G, H, B/G, U, n)
    product = rows.reshape(groups, heads, -1, width) @ right  # (G, H, B/G·U, m)
    return product.view(groups, heads, batch // groups, queries, -1).transpose(1, 2).reshape(batch, heads, queries, -1)


def _per_head(rows: Tensor, weights: Tensor) -> Tensor:
    """Rows (B, H, U, n) times weights (H, n, m), as (B, H, U, m)."""
    return _times(rows, weights.unsqueeze(0))
