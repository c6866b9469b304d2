"""Prefixes inside a frozen model's attention, through transformers' attention registry.

No model code is subclassed or copied: a registered attention function (:mod:`mmpt.attention.function`) puts each
module's own prefix before its keys and values, and calls the model's original implementation.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping

from transformers import GenerationMixin, PreTrainedModel

from mmpt.attention import positions
from mmpt.attention.architectures import Architecture, architecture_of
from mmpt.attention.function import carry
from mmpt.attention.prefix import KeyValue, SiteShape, shift_of
from mmpt.errors import ModelError

# what models and their layers call a cache of keys and values: transformers 5.24 has another name for it
CACHE = next(
    name
    for name in ("cache", "past_key_values")
    if name in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
)
OWN = "mmpt_"  # what the names of our attention functions begin with


def running_attention(model: PreTrainedModel) -> str:
    """The attention that a model runs, such as ``sdpa``; transformers has no public name for it."""
    return str(getattr(model.config, "_attn_implementation", None) or "eager")


def injected_attention(implementation: str, architecture: Architecture) -> str:
    """The attention that can carry prefixes, ``mmpt_eager`` or ``mmpt_sdpa``, to replace the one of a loaded model.

    Flash attention knows neither masks nor biases of single scores, and transformers finds it by its own name only;
    such models run torch's sdpa as long as they carry an adapter.
    """
    return "mmpt_eager" if architecture.soft_capped or implementation.endswith("eager") else "mmpt_sdpa"


def switch_attention(model: PreTrainedModel) -> str | None:
    """Let a model run the attention that can carry prefixes. Returns what it ran before; None: ours already."""
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
        """Find the sites of a backbone that runs the attention ``mmpt_sdpa`` or ``mmpt_eager``.

        ModelError: the architecture cannot carry prefixes, or the model runs other attention.
        """
        self.architecture = architecture_of(model.config.model_type)
        if not running_attention(model).startswith(OWN):
            raise ModelError(f"the backbone runs {running_attention(model)!r} attention, not mmpt_sdpa or mmpt_eager")
        self.modules = self.architecture.modules(model)
        self.layers = {site: list(self.architecture.layers(model, site)) for site in self.modules}
        if self.architecture.relative_bias:
            positions.remember_bias(self.modules["decoder"])
        path = self.architecture.positions
        self.positions = None if path is None else model.base_model.get_submodule(path)
        if self.positions is not None:
            positions.install(self.positions)
        self.shapes = {
            site: SiteShape(len(modules), *self.architecture.width_of_heads(modules[0]))
            for site, modules in self.modules.items()
        }

    def set(self, prefixes: Mapping[str, KeyValue], sites: Collection[str] | None = None) -> None:
        """Give sites, by default all, their prefixes for the coming passes; those without one carry none."""
        if self.positions is not None:
            positions.shift(self.positions, shift_of(prefixes))
        for site in self.modules if sites is None else sites:
            modules, prefix = self.modules[site], prefixes.get(site)
            first = len(modules) - (0 if prefix is None else prefix.key.shape[1])  # layers below it carry none
            layers = [] if prefix is None else prefix.layers()
            carry(modules, [*[None] * first, *layers])

    def remove(self) -> None:
        """Leave the backbone's modules without a trace."""
        self.set({})
        if self.positions is not None:
            positions.remove(self.positions)
