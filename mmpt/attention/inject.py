"""Prefixes inside a frozen model's attention, through transformers' attention registry.

No model code is subclassed or copied: a registered attention function puts each module's own prefix before its keys
and values, and calls the model's original implementation.

Letters: B batch, H heads, k head width, P prefix tokens, Q queries, N keys (without prefix).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, GenerationMixin, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from mmpt.attention import paper, positions
from mmpt.attention.architectures import Architecture, architecture_of
from mmpt.attention.prefix import KeyValue, LayerPrefix, SiteShape, for_batch, shift_of
from mmpt.errors import ModelError

# what models and their layers call a cache of keys and values: transformers 5.24 has another name for it
CACHE = next(
    name
    for name in ("cache", "past_key_values")
    if name in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
)
_PREFIX = "_mmpt_prefix"  # an attention module's attribute with its prefix of this pass
_HIDDEN, _HOOKED = "_mmpt_hidden", "_mmpt_hooked"  # the hidden states it was called with, and the hook that keeps them


def injected_attention(implementation: str, architecture: Architecture) -> str:
    """The implementation that can carry prefixes, to replace one that a model was loaded with.

    Flash attention knows neither masks nor biases of single scores, and transformers finds it by its own name only;
    such models run torch's sdpa as long as they carry an adapter.

    Args:
        implementation: As transformers names it: ``sdpa``, ``eager``, ``flash_attention_2``, ….
        architecture: The model's.
    """
    eager = architecture.soft_capped or implementation.endswith("eager")
    return "mmpt_eager" if eager else "mmpt_sdpa"


def carried(module: nn.Module) -> LayerPrefix | None:
    """The prefix that an attention module carries in this pass; None without one."""
    prefix: LayerPrefix | None = getattr(module, _PREFIX, None)
    return prefix


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
    hidden: Tensor = module.__dict__.pop(_HIDDEN)
    return hidden


def _keep_hidden(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    prefix = carried(module)
    if prefix is not None and prefix.attend is not None:
        object.__setattr__(module, _HIDDEN, args[0] if args else kwargs["hidden_states"])


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
    """Attention (B, Q, H, k) through the method's own ``attend``, which no other implementation knows.

    ``added`` are mask (bool, True may be attended, or float) and position bias, each (…, Q, N) or None.
    """
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
    weights = prefix.weights(scores, pop_hidden(module), slice(None), len(query))
    weights = F.dropout(weights, dropout, module.training)
    before, after = weights.split([prefix.tokens, key.shape[2]], dim=-1)
    return (prefix.read(before) + after @ value).transpose(1, 2).contiguous(), None


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
        prefix = carried(module)
        if prefix is not None and prefix.attend is not None:
            return _attend(module, query, key, value, (position_bias, attention_mask), prefix, **kwargs)
        if prefix is not None and prefix.output_gate is None:
            key, value, attention_mask, position_bias = _extend(
                module, prefix, query, key, value, attention_mask, position_bias
            )
        output = original(module)(module, query, key, value, attention_mask, position_bias=position_bias, **kwargs)
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
    """Let a model run the attention that can carry prefixes.

    Returns:
        What it ran before; None where it ran ours already.
    """
    before = running_attention(model)
    if before.startswith(OWN):
        return None
    set_attention(model, injected_attention(before, architecture_of(model.config.model_type)))
    return before


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Let a model and its stacks run an attention; transformers 5.16 passes by stacks with the same class of config."""
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.set_attn_implementation(name)


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
