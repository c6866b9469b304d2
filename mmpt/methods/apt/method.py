"""APT, adaptive prefix tuning (Zhang et al. 2023, arXiv 2305.15212): a prefix with gates for tokens and for layers.

Per site and layer l, P_l (S, 2, H·k) is seen as λ_l·α_l ⊙ P_l, keys and values alike:

- token gates α_l = sigmoid(h·W_l), W_l (d, S), from the hidden state h (d,) that enters the layer's attention;
- a layer gate λ_l, one number, 1 at the start.

That a gate of the hidden state scores each token, and a scale each layer, is in the paper's abstract and introduction;
the equation itself, initial values and learning rates were not compared with its text, nor was which hidden state is
meant. Here each query has gates from its own state (after the layer norm, where the model has one before attention), so
that a target token depends on no later one and generation is the same with and without a cache. W is zero at first:
every gate is then 0.5.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mmpt.attention.prefix import KeyValue
from mmpt.methods.apt.options import APT
from mmpt.methods.base import BackboneShape
from mmpt.methods.deep_prefix import DeepPrefixMethod


def gated_attention(scores: Tensor, tokens: int, hidden: Tensor, state: Tensor | None) -> Tensor:
    """See :class:`mmpt.attention.prefix.Attend`: each query has gates on keys and values; ``state`` is W (B, d, S)."""
    assert state is not None
    gates = torch.sigmoid(hidden.float() @ state).unsqueeze(1)  # (B, 1, Q, S)
    gates = nn.functional.pad(gates, (0, scores.shape[-1] - tokens), value=1.0)
    return gates * torch.softmax(gates * scores, dim=-1)


class AdaptivePrefixTuning(DeepPrefixMethod):
    """One deep prefix, seen by each query through gates of its own."""

    options: APT

    def __init__(self, options: APT, shape: BackboneShape) -> None:
        """Create prefix, W and λ for every chosen site."""
        super().__init__(options, shape)
        tokens = options.num_virtual_tokens
        self.token_gates, self.layer_gates = nn.ParameterDict(), nn.ParameterDict()
        for site, layout in self.layouts.items():
            layers = layout.shape.layers
            self.token_gates[site] = nn.Parameter(torch.zeros(layers, shape.state_width, tokens))
            self.layer_gates[site] = nn.Parameter(torch.ones(layers))

    def site_prefix(self, site: str) -> KeyValue:
        """See the base class."""
        layout = self.layouts[site]
        slots = layout.slots(self.dropped(self.prefix[site]))
        slots = slots * layout.taken(self.layer_gates[site], 0, layout.columns).unsqueeze(-1)  # (S, 2L, H·k)
        gates = self.token_gates[site].unsqueeze(0)
        return replace(layout.keys_values(slots.unsqueeze(0)), attend=gated_attention, attend_state=gates)
