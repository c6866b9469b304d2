"""Prefixes inside a frozen model's attention, through transformers' attention registry.

No model code is subclassed or copied: a registered attention function puts each module's own prefix in front of its
keys and values, and calls the model's original implementation.

Letters: B batch, H heads, k head width, L layers, P prefix tokens, Q queries, N keys (without prefix).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from mmpt.errors import ModelError
from mmpt.models import paper, positions
from mmpt.models.architectures import architecture_of

_SLOT = "_mmpt_prefix"  # where an attention module carries its prefix during a forward pass


@dataclass(frozen=True)
class SiteShape:
    """The attention of one site: layers L, key/value heads H (fewer than query heads in some models), head width k."""

    layers: int
    heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """Width H·k of one key or value."""
        return self.heads * self.head_dim


@dataclass(frozen=True)
class KeyValue:
    """A site's prefix: ``key`` and ``value``, each (G, L, H, P, k), for G groups of rows of the batch.

    L may be less than the site's layers: the prefix is then that of the last ones.

    G divides B, and a group's rows lie together: 1 where all share a prefix, B where each has its own.

    ``key_gate`` and ``value_gate`` (G', L, P) multiply them where given, G' dividing B too: a prefix that examples
    share and see through masks of their own is never copied for every example.

    ``positioned`` prefixes take positions 0..P-1 of the sequence (layout ``paper``); others have no position.
    ``real`` (G', P), True where there is a token, is given where prefixes of different lengths are stacked.
    With ``output_gate`` (L,), queries attend to the prefix apart, and that times the gate is added to their attention
    without it: at zero, nothing changes.
    ``shift`` is added to the positions of a decoder-only model's text (layout ``peft``).
    """

    key: Tensor
    value: Tensor
    positioned: bool = False
    key_gate: Tensor | None = None
    value_gate: Tensor | None = None
    real: Tensor | None = None
    output_gate: Tensor | None = None
    shift: int = 0

    def layer(self, index: int) -> LayerPrefix:
        """The prefix of one layer."""
        key_gate, value_gate = (None if gate is None else gate[:, index] for gate in (self.key_gate, self.value_gate))
        output_gate = None if self.output_gate is None else self.output_gate[index]
        key, value = self.key[:, index], self.value[:, index]
        return LayerPrefix(key, value, self.positioned, key_gate, value_gate, self.real, output_gate)

    def expanded(self, batch: int) -> tuple[Tensor, Tensor]:
        """Gated keys and values of ``batch`` rows, each (B, L, H, P, k)."""
        layers = [self.layer(index).expanded(batch, self.key.dtype) for index in range(self.key.shape[1])]
        key, value = (torch.stack(parts, dim=1) for parts in zip(*layers, strict=True))
        return key, value


@dataclass(frozen=True)
class LayerPrefix:
    """One layer's :class:`KeyValue`: ``key`` and ``value`` (G, H, P, k), ``output_gate`` (), others (G', P) or None."""

    key: Tensor
    value: Tensor
    positioned: bool
    key_gate: Tensor | None
    value_gate: Tensor | None
    real: Tensor | None
    output_gate: Tensor | None

    def expanded(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Gated keys and values of ``batch`` rows, each (B, H, P, k)."""
        pairs = ((self.key, self.key_gate), (self.value, self.value_gate))
        key, value = (_gated(part, gate, batch).to(dtype) for part, gate in pairs)
        return key, value

    def apart(self, query: Tensor, scaling: float | None) -> Tensor:
        """Attention of queries (B, H, Q, k) to the prefix alone, times ``output_gate``: (B, H, Q, k)."""
        assert self.output_gate is not None
        key, value = self.expanded(query.shape[0], query.dtype)
        grouped = query.shape[1] != key.shape[1]
        seen = F.scaled_dot_product_attention(query, key, value, scale=scaling, enable_gqa=grouped)
        return self.output_gate.to(seen.dtype) * seen


def _gated(part: Tensor, gate: Tensor | None, batch: int) -> Tensor:
    if gate is None:
        return for_batch(part, batch)
    rows = max(part.shape[0], gate.shape[0])
    return for_batch(for_batch(part, rows) * for_batch(gate, rows)[:, None, :, None], batch)


def shift_of(prefixes: Mapping[str, KeyValue]) -> int:
    """How many positions further on the text begins."""
    return max((prefix.shift for prefix in prefixes.values()), default=0)


def for_batch(part: Tensor, batch: int) -> Tensor:
    """Repeat (G, …) for ``batch`` rows, a multiple of G; a group's rows lie together (the beams of an example)."""
    have = part.shape[0]
    if have == batch:
        return part
    if have == 1:
        return part.expand(batch, *part.shape[1:])
    if batch % have:
        raise ValueError(f"a prefix for {have} examples can't serve a batch of {batch}")
    return part.repeat_interleave(batch // have, dim=0)


def carried(module: nn.Module) -> LayerPrefix | None:
    """The prefix that an attention module carries in this pass; None without one."""
    prefix: LayerPrefix | None = getattr(module, _SLOT, None)
    return prefix


def carry(modules: Sequence[nn.Module], prefixes: Sequence[LayerPrefix | None]) -> None:
    """Let attention modules carry a prefix each, or none."""
    for module, prefix in zip(modules, prefixes, strict=True):
        # not through nn.Module's own bookkeeping: a prefix is a value of one pass, never part of the state
        object.__setattr__(module, _SLOT, prefix)


def _extend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Put the module's prefix before key and value (B, H, N, k); widen mask and position bias (…, Q, N) to match."""
    prefix = carried(module)
    if prefix is None:
        return key, value, mask, bias
    length, past = prefix.key.shape[2], key.shape[2] - query.shape[2]
    front, front_value = prefix.expanded(key.shape[0], key.dtype)
    key, value = torch.cat([front, key], dim=2), torch.cat([front_value, value], dim=2)
    if mask is not None:  # bool: True may be attended; float: 0 is added
        mask = F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)
    if prefix.real is not None:
        mask = _hide_padding(for_batch(prefix.real, key.shape[0]), mask, query, key)
    if bias is not None and prefix.positioned:
        before = paper.prefix_bias(module, queries=query.shape[2], past=past, length=length)
        bias = torch.cat([before.to(bias.dtype).expand(*bias.shape[:-1], length), bias], dim=-1)
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
    """An attention function that puts the module's prefix in front, and goes on with the original for that module."""

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        position_bias: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        prefix = carried(module)
        if prefix is not None and prefix.output_gate is not None:
            plain = original(module)(module, query, key, value, attention_mask, position_bias=position_bias, **kwargs)
            return plain[0] + prefix.apart(query, kwargs.get("scaling")).transpose(1, 2), plain[1]
        key, value, attention_mask, position_bias = _extend(module, query, key, value, attention_mask, position_bias)
        return original(module)(module, query, key, value, attention_mask, position_bias=position_bias, **kwargs)

    return attend


def _eager(module: nn.Module) -> Callable[..., Any]:
    """The eager attention of the module's own architecture."""
    function: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
    return function


def _explicit(mask_function: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """A mask function that never leaves causality to sdpa's flag.

    Without a mask, sdpa aligns causality at the upper left and cuts the keys to the number of queries, which is wrong
    as soon as a prefix stands before them.
    """

    def build(*args: Any, **kwargs: Any) -> Tensor | None:
        return mask_function(*args, **{**kwargs, "allow_is_causal_skip": False})

    return build


AttentionInterface.register("mmpt_sdpa", _with_prefix(lambda _: sdpa_attention_forward))
AttentionInterface.register("mmpt_eager", _with_prefix(_eager))
AttentionMaskInterface.register("mmpt_sdpa", _explicit(sdpa_mask))
AttentionMaskInterface.register("mmpt_eager", _explicit(eager_mask))


class Injection:
    """The attention modules of one backbone by site, and the prefix they carry."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Find the sites.

        Args:
            model: A backbone loaded with ``attn_implementation="mmpt_sdpa"`` or ``"mmpt_eager"``.

        Raises:
            ModelError: The architecture can't be injected, or the model was loaded with other attention.
        """
        self.architecture = architecture_of(model.config.model_type)
        implementation = str(model.config._attn_implementation)
        if not implementation.startswith("mmpt_"):
            raise ModelError(f"the backbone runs {implementation!r} attention, not mmpt_sdpa or mmpt_eager")
        self.modules = self.architecture.modules(model)
        self.layers = {site: list(self.architecture.layers(model, site)) for site in self.modules}
        if self.architecture.relative_bias:
            paper.remember_bias(self.modules["decoder"])
        place = self.architecture.positions
        self.positions = None if place is None else model.base_model.get_submodule(place)
        if self.positions is not None:
            positions.install(self.positions)
        self.shapes = {
            site: SiteShape(len(modules), *self.architecture.width_of_heads(modules[0]))
            for site, modules in self.modules.items()
        }

    def set(self, prefixes: Mapping[str, KeyValue]) -> None:
        """Give every site its prefix for the coming forward passes; sites not named carry none."""
        if self.positions is not None:
            positions.shift(self.positions, shift_of(prefixes))
        for site, modules in self.modules.items():
            prefix = prefixes.get(site)
            first = 0 if prefix is None else len(modules) - prefix.key.shape[1]  # layers below it carry none
            for index, module in enumerate(modules, start=-first):
                carry([module], [None if prefix is None or index < 0 else prefix.layer(index)])

    @contextmanager
    def active(self, prefixes: Mapping[str, KeyValue]) -> Iterator[None]:
        """Carry ``prefixes`` within the block, and none after it."""
        self.set(prefixes)
        try:
            yield
        finally:
            self.set({})
