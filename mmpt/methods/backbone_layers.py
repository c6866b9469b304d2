"""Layers of the backbone that a method changes: which ones ``method.layers`` chooses, and what stays constant below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from mmpt.attention.architectures import architecture_of
from mmpt.methods.options import LastLayers


def _paths(backbone: nn.Module) -> dict[str, list[str]]:
    """Paths of the layers of the stack that each site is in, each with a dot at its end, first layer first."""
    model: Any = backbone
    architecture = architecture_of(model.config.model_type)
    names = {id(module): f"{name}." for name, module in model.named_modules()}
    return {site: [names[id(layer)] for layer in architecture.layers(model, site)] for site in architecture.sites}


def in_last_layers(backbone: nn.Module, options: LastLayers, paths: Iterable[str]) -> list[str]:
    """Those of the paths that lie in the last layers of a stack, as ``options.layers`` says; all of them for ``all``.

    Raises:
        ConfigError: A stack has fewer layers.
    """
    if options.layers == "all":
        return list(paths)
    stacks = _paths(backbone).items()
    chosen = tuple(path for site, layers in stacks for path in layers[-options.number_of(len(layers), site) :])
    return [path for path in paths if path.startswith(chosen)]


def constant_below(backbone: nn.Module, changed: Iterable[str]) -> int:
    """How many layers of the first stack run before the first one that has a changed module or parameter."""
    stacks, paths = _paths(backbone), list(changed)
    first_site = next(iter(stacks))
    total = len(stacks[first_site])
    inside = tuple(layer for layers in stacks.values() for layer in layers)
    if not all(path.startswith(inside) for path in paths):  # embeddings, say
        first = 0
    else:
        touched = (index for index, layer in enumerate(stacks[first_site]) if any(p.startswith(layer) for p in paths))
        first = next(touched, total)
    if len(stacks) == 1:  # its last layer always runs
        first = min(first, total - 1)
    return first
