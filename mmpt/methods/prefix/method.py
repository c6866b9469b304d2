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
from mmpt.methods.base import BackboneShape
from mmpt.methods.deep_prefix import DeepPrefixMethod
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


class PrefixTuning(DeepPrefixMethod):
    """One deep prefix for all inputs."""

    options: Prefix
    prefix: Any  # tables, or networks that make them

    def __init__(self, options: Prefix, shape: BackboneShape) -> None:
        """Create the network and the mask where asked, for every chosen site."""
        super().__init__(options, shape)
        tokens = options.num_virtual_tokens
        if options.reparametrization == "mlp":
            self.prefix = nn.ModuleDict()
            for site, layout in self.layouts.items():
                sizes = (tokens, shape.width, options.reparametrization_hidden, layout.table_width)
                self.prefix[site] = Reparametrization(*sizes)
        if options.mask == "single":
            self.masks = nn.ParameterDict({site: self.new_mask(site, tokens) for site in self.layouts})

    def _table(self, site: str) -> Tensor:
        entry: Any = self.prefix[site]
        table: Tensor = entry() if isinstance(entry, Reparametrization) else entry
        return table

    def site_prefix(self, site: str) -> KeyValue:
        """See the base class."""
        layout = self.layouts[site]
        slots = layout.slots(self.dropped(self._table(site)))  # (S, 2L, H·k)
        if self.options.mask == "single":
            slots = layout.gate(slots, self.masks[site])
        return self.gated(site, layout.keys_values(slots.unsqueeze(0)))

    def folded(self) -> tuple[Prefix, dict[str, Tensor]]:
        """See the base class: the reparametrisation's output is saved, not its weights."""
        _, state = super().folded()
        if self.options.reparametrization == "mlp":
            state = {name: tensor for name, tensor in state.items() if not name.startswith("prefix.")}
            with torch.no_grad():
                state |= {f"prefix.{site}": self._table(site) for site in self.layouts}
        return replace(self.options, reparametrization="none"), state
