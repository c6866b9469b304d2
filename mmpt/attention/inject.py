"""Prefixes inside a frozen model's attention, through transformers' attention registry.

No model code is subclassed or copied: a registered attention function (:mod:`mmpt.attention.function`) puts each
module's own prefix before its keys and values, and calls the model's original implementation.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from transformers import GenerationMixin, PreTrainedModel

from mmpt.attention import paper, positions
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
