"""Prefix tuning (Li & Liang 2021; in every layer as in P-tuning v2), with an optional adaptive mask.

Per site, P (S, 2L, H·k): S extra keys and values in each layer that every query may attend to.

- ``reparametrization=mlp``: P = W2·tanh(W1·e) with e (S, d); only P is saved with the adapter.
- ``mask=single``: token s in layer l is multiplied by sigmoid(M[s, l]/τ), M (S, L), N(2.5, 0.5) at the start;
  ``mask_temperature`` is τ. ``mask_granularity``: M (S, L), one for each head (S, L, H), or one for keys and one for
  values (S, L, 2).
- ``prefix_dropout``: entries of P are dropped while training, the same for all examples of a batch.
- ``init``: N(0, init_std²), zeros, or the backbone's own keys and values of sampled vocabulary or of a text. A prefix
  of zeros still takes part of the attention.
- ``gate=true``: queries attend to the prefix apart from the text, and g_l times that is added, g (L,) zero at first, so
  that training starts from the backbone itself (after LLaMA-Adapter, Zhang et al. 2023; not compared with its text).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.attention.prefix import KeyValue
from mmpt.methods.base import BackboneShape, Contribution, Method, StartingValues
from mmpt.methods.layout import layouts, new_gates, starting_values
from mmpt.methods.prefix.options import Prefix


class Reparametrization(nn.Module):
    """A prefix as the output of an MLP over a small embedding (Li & Liang 2021, section 4.3)."""

    def __init__(self, tokens: int, width: int, hidden: int, out: int) -> None:
        """Create e (tokens, width), W1 (width → hidden) and W2 (hidden → out)."""
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(tokens, width))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, out))

    def forward(self) -> Tensor:
        """The prefix (tokens, out)."""
        return self.mlp(self.embedding)


def new_mask(mean: float, std: float, *size: int) -> nn.Parameter:
    """A mask before its sigmoid, N(mean, std)."""
    return nn.Parameter(mean + std * torch.randn(*size))


class PrefixTuning(Method):
    """One deep prefix for all inputs."""

    options: Prefix

    def __init__(self, options: Prefix, shape: BackboneShape) -> None:
        """Create the prefix, and the mask where asked, for every chosen site."""
        super().__init__(options, shape)
        tokens = options.num_virtual_tokens
        self.layouts = layouts(options, shape)
        sizes = {site: 2 * layout.shape.layers * layout.shape.width for site, layout in self.layouts.items()}
        self.prefix: nn.ParameterDict | nn.ModuleDict
        if options.reparametrization == "mlp":
            hidden = options.reparametrization_hidden
            self.prefix = nn.ModuleDict(
                {site: Reparametrization(tokens, shape.width, hidden, size) for site, size in sizes.items()}
            )
        else:
            self.prefix = nn.ParameterDict(
                {site: nn.Parameter(options.spread * torch.randn(tokens, size)) for site, size in sizes.items()}
            )
        if options.mask == "single":
            self.masks = nn.ParameterDict(
                {
                    site: new_mask(options.mask_init_mean, options.mask_init_std, tokens, *layout.mask_size)
                    for site, layout in self.layouts.items()
                }
            )

        if options.gate:
            self.gates = new_gates(self.layouts)

    def _table(self, site: str) -> Tensor:
        entry: Any = self.prefix[site]
        table: Tensor = entry() if isinstance(entry, Reparametrization) else entry
        return table

    def initialise(self, backbone: StartingValues) -> None:
        """See the base class."""
        table: Any = self.prefix
        found = starting_values(self.options, backbone, self.layouts, self.options.num_virtual_tokens)
        for site, values in found.items():
            table[site].data.copy_(values)

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class."""
        prefixes: dict[str, KeyValue] = {}
        for site, layout in self.layouts.items():
            table = nn.functional.dropout(self._table(site), self.options.prefix_dropout, self.training)
            slots = layout.slots(table)  # (S, 2L, H·k)
            if self.options.mask == "single":
                slots = layout.gate(slots, self.masks[site])
            prefix = layout.keys_values(slots.unsqueeze(0))
            prefixes[site] = replace(prefix, output_gate=self.gates[site]) if self.options.gate else prefix
        return Contribution(prefixes)

    def mask_values(self) -> dict[str, Tensor]:
        """See the base class; R is 1."""
        if self.options.mask == "none":
            return {}
        shown = [self.layouts[site].shown(site, mask) for site, mask in self.masks.items()]
        return {name: value for found in shown for name, value in found.items()}

    def folded(self) -> tuple[Prefix, dict[str, Tensor]]:
        """See the base class: the reparametrisation's output is saved, not its weights."""
        _, state = super().folded()
        if self.options.reparametrization == "mlp":
            state = {name: tensor for name, tensor in state.items() if not name.startswith("prefix.")}
            with torch.no_grad():
                state |= {f"prefix.{site}": self._table(site) for site in self.layouts}
        return replace(self.options, reparametrization="none"), state


METHOD = PrefixTuning
