"""The attention functions that put each module's own prefix before its keys and values, in transformers' registry.

Letters: B batch, H heads, k head width, P prefix tokens, Q queries, N keys (without prefix).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from mmpt.attention import positions
from mmpt.attention.packing import packing_of
from mmpt.attention.prefix import LayerPrefix, for_batch
from mmpt.errors import ModelError

FEW = 32  # keys, up to which scores in float32 are faster than sdpa in bfloat16
_PREFIX = "_mmpt_prefix"  # an attention module's attribute with its prefix of this pass
_NARROWED = "_mmpt_narrowed"  # an attention module's attribute with the queries it is to compute
_HIDDEN, _HOOKED = "_mmpt_hidden", "_mmpt_hooked"  # the hidden states it was called with, and the hook that keeps them


def carried(module: nn.Module, device: torch.device | None = None) -> LayerPrefix | None:
    """The prefix that an attention module carries in this pass, on a device where one is given; None without one."""
    prefix: LayerPrefix | None = getattr(module, _PREFIX, None)
    return prefix if prefix is None or device is None else prefix.on(device)


def carry(modules: Sequence[nn.Module], prefixes: Sequence[LayerPrefix | None]) -> None:
    """Let attention modules carry a prefix each, or none."""
    for module, prefix in zip(modules, prefixes, strict=True):
        # not through nn.Module's own bookkeeping: a prefix is a value of one pass, never part of the state
        object.__setattr__(module, _PREFIX, prefix)
        if prefix is not None and prefix.attend is not None and not hasattr(module, _HOOKED):
            handle = module.register_forward_pre_hook(_keep_hidden, with_kwargs=True)
            object.__setattr__(module, _HOOKED, handle)
        elif prefix is None and (handle := module.__dict__.pop(_HOOKED, None)) is not None:
            handle.remove()


def pop_hidden(module: nn.Module) -> Tensor:
    """The hidden states (B, Q, d) that a module was called with, once; its prefix has ``attend``."""
    hidden, packing = module.__dict__.pop(_HIDDEN), packing_of(module)
    return hidden if packing is None else packing.unpack(hidden)


def _keep_hidden(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    prefix = carried(module)
    if prefix is not None and prefix.attend is not None:
        object.__setattr__(module, _HIDDEN, args[0] if args else kwargs["hidden_states"])


class NarrowedError(Exception):
    """Ends a layer's first pass of two, when its attention has all keys and values."""


class _Narrowed:
    """Queries, keys and values of a layer that is called twice: with all its states, and with those that are wanted."""

    def __init__(self, wanted: Tensor) -> None:
        self.wanted = wanted
        self.first: tuple[Any, ...] | None = None  # what the first call gave

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *added: Tensor | None) -> tuple[Any, ...]:
        """The wanted queries (B, H, W, k), all keys and values (B, H, N, k), and ``added`` (…, W, N).

        NarrowedError: this is the first call.
        """
        if self.first is None:
            self.first = (self._rows(query), key, value, *map(self._rows, added))
            raise NarrowedError
        return self.first

    def _rows(self, table: Tensor | None) -> Tensor | None:
        """The wanted ones of (B or 1, any, N or 1, any)."""
        if table is None or table.shape[2] == 1:
            return table
        index = self.wanted[:, None, :, None].expand(-1, table.shape[1], -1, table.shape[3])
        return table.expand(len(self.wanted), -1, -1, -1).gather(2, index)


@contextmanager
def narrow(module: nn.Module, wanted: Tensor) -> Iterator[None]:
    """Let an attention module compute only the queries with the indices ``wanted`` (B, W), within the block.

    It is called twice: with all states, which ends in a NarrowedError, and with the wanted ones.
    """
    object.__setattr__(module, _NARROWED, _Narrowed(wanted))
    try:
        yield
    finally:
        del module.__dict__[_NARROWED]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    added: Sequence[Tensor | None],
    prefix: LayerPrefix,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention (B, Q, H, k) through a method's own ``attend``, or else the softmax with all sums in float32.

    ``added`` are mask (bool, True may be attended, or float) and position bias, each (…, Q, N) or None.
    """
    dtype = query.dtype
    if prefix.attend is None:
        query, key, value = query.float(), key.float(), value.float()
    if softcap is not None:
        raise ModelError(
            "a method with its own attend function does not work where attention scores are capped; use another method "
            "or model"
        )
    groups = query.shape[1] // key.shape[1]  # queries that share one key and value
    key, value = (part.repeat_interleave(groups, dim=1) if groups > 1 else part for part in (key, value))
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = query @ key.transpose(2, 3)
    for part in added:
        if part is not None and part.dtype == torch.bool:
            scores = scores.masked_fill(~part, torch.finfo(scores.dtype).min)
        elif part is not None:
            scores = scores + part
    scores = torch.cat([prefix.scores(query), scores], dim=-1)
    if prefix.attend is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        weights = prefix.weights(scores, pop_hidden(module), slice(None), len(query))
    weights = F.dropout(weights, dropout, module.training)
    before, after = weights.split([prefix.tokens, key.shape[2]], dim=-1)
    return (prefix.read(before) + after @ value).transpose(1, 2).to(dtype).contiguous(), None


def _few(prefix: LayerPrefix, query: Tensor, key: Tensor) -> bool:
    """Whether to compute scores as :func:`_attend` does: the prefix is not copied for each row of the batch then.

    On a CPU, sdpa is slow with a few keys in bfloat16. In float32 it stays, for the same bits as before.
    """
    plain = prefix.output_gate is None and not prefix.positioned
    return plain and query.dtype == torch.bfloat16 and query.device.type == "cpu" and key.shape[2] <= FEW


def _extend(
    module: nn.Module,
    prefix: LayerPrefix,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Put a prefix before key and value (B, H, N, k); widen mask and position bias (…, Q, N) to match."""
    length, past = prefix.tokens, key.shape[2] - query.shape[2]
    front, front_value = prefix.rows(key.shape[0], key.dtype)
    key, value = torch.cat([front, key], dim=2), torch.cat([front_value, value], dim=2)
    if mask is not None:  # bool: True may be attended; float: 0 is added
        mask = F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)
    if prefix.real is not None:
        mask = _hide_padding(for_batch(prefix.real, key.shape[0]), mask, query, key)
    if bias is not None and prefix.positioned:
        given = {"queries": query.shape[2], "past": past, "length": length}
        before = positions.prefix_bias(module, device=query.device, **given)
        bias = torch.cat([before.to(bias).expand(*bias.shape[:-1], length), bias], dim=-1)
    elif bias is not None:
        bias = F.pad(bias, (length, 0))
    return key, value, mask, bias


def _hide_padding(real: Tensor, mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """Keep queries from the padding of stacked prefixes; ``real`` (B, P), mask (…, Q, P+N) or None."""
    allowed = F.pad(real, (0, key.shape[2] - real.shape[1]), value=True)[:, None, None]  # (B, 1, 1, P+N)
    if mask is None:  # as numbers, which every implementation adds
        mask = torch.zeros((), dtype=query.dtype, device=query.device)
        return mask.masked_fill(~allowed, torch.finfo(query.dtype).min).expand(-1, -1, query.shape[2], -1)
    if mask.dtype == torch.bool:
        return mask & allowed
    return mask.masked_fill(~allowed, torch.finfo(mask.dtype).min)


def _with_prefix(original: Callable[[nn.Module], Callable[..., Any]]) -> Callable[..., Any]:
    """An attention function that puts the module's prefix first, then calls the original one for that module."""

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        position_bias: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        narrowed: _Narrowed | None = getattr(module, _NARROWED, None)
        if narrowed is not None:
            query, key, value, attention_mask, position_bias = narrowed(
                query, key, value, attention_mask, position_bias
            )
        packing = packing_of(module)
        if packing is None:
            return compute(module, query, key, value, attention_mask, position_bias, **kwargs)
        if key.shape[2] == query.shape[2] and len(key) == 1:  # self attention
            key, value, attention_mask = packing.heads(key), packing.heads(value), packing.own(attention_mask)
            position_bias = packing.own(position_bias)
        else:
            attention_mask = packing.source(attention_mask)
            position_bias = None if position_bias is None else position_bias[:, :, : packing.shape[1]]
        output, weights = compute(module, packing.heads(query), key, value, attention_mask, position_bias, **kwargs)
        return packing.pack(output), weights

    def compute(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        position_bias: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        prefix, function = carried(module, query.device), original(module)
        few = prefix is not None and function is sdpa_attention_forward and _few(prefix, query, key)
        if prefix is not None and (few or prefix.attend is not None):
            return _attend(module, query, key, value, (position_bias, attention_mask), prefix, **kwargs)
        if prefix is not None and prefix.output_gate is None:
            key, value, attention_mask, position_bias = _extend(
                module, prefix, query, key, value, attention_mask, position_bias
            )
        output = function(module, query, key, value, attention_mask, position_bias=position_bias, **kwargs)
        if prefix is None or prefix.output_gate is None:
            return output
        return output[0] + prefix.separate(query, kwargs.get("scaling")).transpose(1, 2), output[1]

    return attend


def _eager(module: nn.Module) -> Callable[..., Any]:
    """The eager attention of the module's own architecture."""
    function: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
    return function


def _explicit(mask_function: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """A mask function that never leaves causality to sdpa's flag.

    Without a mask, sdpa aligns causality at the upper left and cuts the keys to the number of queries, which is wrong
    as soon as a prefix stands before them. On a GPU, a mask that hides nothing is built too: to find out that it does,
    the device would have to be waited for.
    """

    def build(*args: Any, **kwargs: Any) -> Tensor | None:
        given = kwargs.get("attention_mask")
        never = {} if given is None or given.device.type == "cpu" else {"allow_is_bidirectional_skip": False}
        return mask_function(*args, **{**kwargs, "allow_is_causal_skip": False, **never})

    return build


AttentionInterface.register("mmpt_sdpa", _with_prefix(lambda _: sdpa_attention_forward))
AttentionInterface.register("mmpt_eager", _with_prefix(_eager))
AttentionMaskInterface.register("mmpt_sdpa", _explicit(sdpa_mask))
AttentionMaskInterface.register("mmpt_eager", _explicit(eager_mask))
