"""What methods with a deep prefix share: tables of keys and values by site, masks over them, gates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.attention.prefix import KeyValue
from mmpt.methods.base import BackboneShape, Contribution, Method, StartingValues, starting_ids
from mmpt.methods.layout import Layout
from mmpt.methods.prefix_options import Attention, MaskOptions, PrefixShape


class DeepPrefixMethod(Method):
    """A method whose tables (P, 2L·H·k), by site, become keys and values through a :class:`Layout`."""

    TABLES: tuple[str, ...] = ("prefix", "prompts")  # groups of tables, which ``method.init`` fills
    options: Any
    prefix: nn.ParameterDict  # (S, 2L·H·k)
    masks: nn.ParameterDict  # (R, P, L, …) or (P, L, …)
    gates: nn.ParameterDict  # (L,): attention is A(q, text) + g_l·A(q, prefix), with g zero at the start

    def __init__(self, options: Attention, shape: BackboneShape) -> None:
        """Work out the layouts, and create prefix and closed gates where the options have them."""
        super().__init__(options, shape)
        self.layouts = {site: _layout(options, shape, site) for site in options.sites}
        if "prefix" in (groups := options.groups()) and getattr(options, "reparametrization", "none") == "none":
            self.prefix = self.new_tables(self.options.num_virtual_tokens)
        if "gates" in groups:
            self.gates = nn.ParameterDict(
                {site: nn.Parameter(torch.zeros(layout.shape.layers)) for site, layout in self.layouts.items()}
            )

    def new_tables(self, tokens: int) -> nn.ParameterDict:
        """Random tables of P tokens for every site."""
        tables = {}
        for site, layout in self.layouts.items():
            tables[site] = nn.Parameter(self.options.spread * torch.randn(tokens, layout.table_width))
        return nn.ParameterDict(tables)

    def new_mask(self, site: str, *size: int) -> nn.Parameter:
        """A mask before its sigmoid, N(mean, std), of ``size`` times what the granularity adds."""
        values = torch.randn(*size, *self.layouts[site].mask_size)
        return nn.Parameter(self.options.mask_init_mean + self.options.mask_init_std * values)

    def gated(self, site: str, prefix: KeyValue) -> KeyValue:
        """The prefix with its gate, where there is one."""
        return replace(prefix, output_gate=self.gates[site]) if self.options.gate else prefix

    def site_prefix(self, site: str) -> KeyValue:
        """The prefix of a site, where it is the same for all inputs."""
        raise NotImplementedError

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class."""
        return Contribution({site: self.site_prefix(site) for site in self.layouts})

    def dropped(self, values: Tensor) -> Tensor:
        """``prefix_dropout``."""
        return nn.functional.dropout(values, self.options.prefix_dropout, self.training)

    def initialise(self, backbone: StartingValues) -> None:
        """See the base class: all tables start alike."""
        for tables in (getattr(self, group) for group in self.TABLES if group in self.options.groups()):
            tokens = getattr(next(iter(tables.values())), "shape", (0,))[0]  # a network has no table to fill
            if (ids := starting_ids(self.options, backbone, tokens)) is not None:
                recorded = backbone.keys_values(ids)
                for site, table in tables.items():
                    table.data.copy_(self.layouts[site].from_keys_values(*recorded[site]))

    def mask_values(self) -> dict[str, Tensor]:
        """See the base class; R is 1 for one mask in all."""
        named = self.masks.items() if "masks" in self.options.groups() else ()
        shown = [self.layouts[name.removesuffix("_routes")].shown(name, mask) for name, mask in named]
        return {name: value for masks in shown for name, value in masks.items()}


def _layout(options: Attention, shape: BackboneShape, site: str) -> Layout:
    """A site's layout, with the layers that ``options.layers`` chooses; ConfigError where the site has fewer."""
    whole = shape.sites[site]
    layers = options.number_of(whole.layers, site)
    masks = (options.mask_granularity, options.mask_temperature) if isinstance(options, MaskOptions) else ()
    name = options.layout if isinstance(options, PrefixShape) else "per_layer"
    return Layout(name, replace(whole, layers=layers), *masks)
