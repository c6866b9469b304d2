"""Prefixes inside a frozen model's attention, through transformers' attention registry.

No model code is subclassed or copied: a registered attention function puts each module's own prefix in front of its
keys and values, and calls the model's original implementation.

Letters: B batch, H heads, k head width, L layers, P prefix tokens, Q queries, N keys (without prefix).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, GenerationMixin, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from mmpt.attention import paper, positions
from mmpt.attention.architectures import architecture_of
from mmpt.errors import ModelError

# what models and their layers call a cache of keys and values: transformers 5.24 has another name for it
CACHE = next(
    name
    for name in ("cache", "past_key_values")
    if name in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
)
_SLOT = "_mmpt_prefix"  # where an attention module carries its prefix during a forward pass
_HIDDEN, _HOOKED = "_mmpt_hidden", "_mmpt_hooked"  # the hidden states it was called with, and the hook that keeps them


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

    ``key_gate`` and ``value_gate`` (G', L, H or 1, P) multiply them where given, G' dividing B too: a prefix that
    examples share and see through masks of their own is never copied for every example.

    ``positioned`` prefixes take positions 0..P-1 of the sequence (layout ``paper``); others have no position.
    ``real`` (G', P), True where there is a token, is given where prefixes of different lengths are stacked.
    With ``output_gate`` (L,), queries attend to the prefix apart, and that times the gate is added to their attention
    without it: at zero, nothing changes.
    With ``query_weight`` (G, L, d, P), each query sees token p through a gate of its own on key and value,
    ``sigmoid(h·w_p)``, h (d,) being the hidden state that the attention module was called with.
    ``shift`` is added to the positions of a decoder-only model's text (layout ``peft``).
    """

    key: Tensor
    value: Tensor
    positioned: bool = False
    key_gate: Tensor | None = None
    value_gate: Tensor | None = None
    real: Tensor | None = None
    output_gate: Tensor | None = None
    query_weight: Tensor | None = None
    shift: int = 0

    def layer(self, index: int) -> LayerPrefix:
        """The prefix of one layer."""
        key_gate, value_gate = (None if gate is None else gate[:, index] for gate in (self.key_gate, self.value_gate))
        output_gate = None if self.output_gate is None else self.output_gate[index]
        key, value = self.key[:, index], self.value[:, index]
        query_weight = None if self.query_weight is None else self.query_weight[:, index]
        return LayerPrefix(key, value, self.positioned, key_gate, value_gate, self.real, output_gate, query_weight)

    def expanded(self, batch: int) -> tuple[Tensor, Tensor]:
        """Gated keys and values of ``batch`` rows, each (B, L, H, P, k)."""
        layers = [self.layer(index).expanded(batch, self.key.dtype) for index in range(self.key.shape[1])]
        key, value = (torch.stack(parts, dim=1) for parts in zip(*layers, strict=True))
        return key, value


@dataclass(frozen=True)
class LayerPrefix:
    """One layer's :class:`KeyValue`: ``key`` and ``value`` (G, H, P, k), ``output_gate`` (), the rest or None.

    ``key_gate`` and ``value_gate`` are (G', H or 1, P), ``real`` is (G', P), ``query_weight`` (G, d, P).
    """

    key: Tensor
    value: Tensor
    positioned: bool
    key_gate: Tensor | None
    value_gate: Tensor | None
    real: Tensor | None
    output_gate: Tensor | None
    query_weight: Tensor | None

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
    return for_batch(for_batch(part, rows) * for_batch(gate, rows)[..., None], batch)


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
        if prefix is not None and prefix.query_weight is not None and not hasattr(module, _HOOKED):
            handle = module.register_forward_pre_hook(_keep_hidden, with_kwargs=True)
            object.__setattr__(module, _HOOKED, handle)
        elif prefix is None and (handle := module.__dict__.pop(_HOOKED, None)) is not None:
            handle.remove()


def query_gates(module: nn.Module, prefix: LayerPrefix) -> Tensor | None:
    """The gates (B, 1, Q, P) of a module's queries, where its prefix has ``query_weight``; its pass has begun."""
    if prefix.query_weight is None:
        return None
    hidden: Tensor = module.__dict__.pop(_HIDDEN)  # (B, Q, d)
    weight = for_batch(prefix.query_weight, hidden.shape[0]).to(hidden.dtype)
    return torch.sigmoid(hidden @ weight).unsqueeze(1)


def _keep_hidden(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    prefix = carried(module)
    if prefix is not None and prefix.query_weight is not None:
        object.__setattr__(module, _HIDDEN, args[0] if args else kwargs["hidden_states"])


def _attend_by_query(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    added: Sequence[Tensor | None],
    prefix: LayerPrefix,
    gates: Tensor,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention (B, Q, H, k) where each query has gates (B, 1, Q, P) of its own, which no other implementation knows.

    ``added`` are mask (bool, True may be attended, or float) and position bias, each (…, Q, N) or None.
    """
    if softcap is not None:
        raise ModelError("gates by query (method=apt) don't work where attention scores are capped; use another method")
    groups = query.shape[1] // key.shape[1]  # queries that share one key and value
    parts = (*prefix.expanded(query.shape[0], query.dtype), key, value)
    front, front_value, key, value = (part.repeat_interleave(groups, dim=1) if groups > 1 else part for part in parts)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = scale * (query @ key.transpose(2, 3))
    for part in added:
        if part is not None and part.dtype == torch.bool:
            scores = scores.masked_fill(~part, torch.finfo(scores.dtype).min)
        elif part is not None:
            scores = scores + part
    scores = torch.cat([scale * gates * (query @ front.transpose(2, 3)), scores], dim=-1)
    weights = F.dropout(torch.softmax(scores.float(), dim=-1).to(query.dtype), dropout, module.training)
    before, after = weights.split([front.shape[2], key.shape[2]], dim=-1)
    return ((gates * before) @ front_value + after @ value).transpose(1, 2).contiguous(), None


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
        if prefix is not None and (gates := query_gates(module, prefix)) is not None:
            added = (position_bias, attention_mask)
            return _attend_by_query(module, query, key, value, added, prefix, gates, **kwargs)
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


OWN = "mmpt_"  # what the names of our attention functions begin with


def running_attention(model: PreTrainedModel) -> str:
    """The attention that a model runs, such as ``sdpa``; transformers has no public name for it."""
    return str(getattr(model.config, "_attn_implementation", None) or "eager")


def switch_attention(model: PreTrainedModel) -> str | None:
    """Let a model run the attention that carries prefixes: ``mmpt_eager`` for ``eager``, else ``mmpt_sdpa``.

    Returns:
        What it ran before; None where it ran ours already.

    Raises:
        ModelError: The architecture cannot carry prefixes in the attention that it runs.
    """
    architecture, before = architecture_of(model.config.model_type), running_attention(model)
    eager = before.removeprefix(OWN) == "eager"
    if architecture.soft_capped and not eager:
        raise ModelError(
            f"{model.config.model_type} caps its attention scores, which {before} cannot do; load the model with "
            'attn_implementation="eager"'
        )
    if before.startswith(OWN):
        return None
    model.set_attn_implementation(f"{OWN}eager" if eager else f"{OWN}sdpa")
    return before


class Injection:
    """The attention modules of one backbone by site, and the prefix they carry."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Find the sites.

        Args:
            model: A backbone that runs the attention ``mmpt_sdpa`` or ``mmpt_eager``.

        Raises:
            ModelError: The architecture cannot carry prefixes, or the model runs other attention.
        """
        self.architecture = architecture_of(model.config.model_type)
        if not running_attention(model).startswith(OWN):
            raise ModelError(f"the backbone runs {running_attention(model)!r} attention, not mmpt_sdpa or mmpt_eager")
        self.modules = self.architecture.modules(model)
        self.layers = {site: list(self.architecture.layers(model, site)) for site in self.modules}
        if self.architecture.relative_bias:
            paper.remember_bias(self.modules["decoder"])
        path = self.architecture.positions
        self.positions = None if path is None else model.base_model.get_submodule(path)
        if self.positions is not None:
            positions.install(self.positions)
        self.shapes = {
            site: SiteShape(len(modules), *self.architecture.width_of_heads(modules[0]))
            for site, modules in self.modules.items()
        }

    def set(self, prefixes: Mapping[str, KeyValue], sites: Collection[str] | None = None) -> None:
        """Give sites their prefixes for the coming passes; those without one carry none.

        Args:
            prefixes: By site.
            sites: Which to set; by default all.
        """
        if self.positions is not None:
            positions.shift(self.positions, shift_of(prefixes))
        for site in self.modules if sites is None else sites:
            modules, prefix = self.modules[site], prefixes.get(site)
            first = 0 if prefix is None else len(modules) - prefix.key.shape[1]  # layers below it carry none
            carry(
                modules,
                [
                    None if prefix is None or index < 0 else prefix.layer(index)
                    for index in range(-first, len(modules) - first)
                ],
            )

    def remove(self) -> None:
        """Leave the backbone's modules without a trace."""
        self.set({})
        if self.positions is not None:
            positions.remove(self.positions)

    @contextmanager
    def active(self, prefixes: Mapping[str, KeyValue]) -> Iterator[None]:
        """Carry ``prefixes`` within the block, and none after it."""
        self.set(prefixes)
        try:
            yield
        finally:
            self.set({})
