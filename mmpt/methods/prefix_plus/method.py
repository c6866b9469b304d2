"""Prefix-Tuning+ (Wang et al. 2025, arXiv 2506.13674; later PrefixMemory-Tuning): a prefix outside the softmax.

Per site, layer and key/value head, a memory M (k, k) is added to attention: o = A(q, text) + φ(q)·M with φ = elu, q as
scores are made of it (scaled where the model scales). With keys and values of a prefix, M = Σ_s φ(k_s)·v_sᵀ would be
linear attention to it without its normalisation; here M is trained itself. It takes no attention from the text, however
long that is. M is zero at first, so that training starts from the backbone itself.

That the prefix leaves the attention head and becomes a trained matrix behind a feature map is in the paper's abstract
and in summaries of it; the equation and φ = elu are from memory and from others' descriptions, and were not compared
with its text. The start at zero and the learning rate are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpt.attention.prefix import KeyValue
from mmpt.methods.base import BackboneShape
from mmpt.methods.deep_prefix import DeepPrefixMethod
from mmpt.methods.prefix_plus.options import PrefixPlus


def outside_softmax(scores: Tensor, tokens: int, hidden: Tensor, state: Tensor | None) -> Tensor:
    """See :class:`mmpt.attention.prefix.Attend`: the prefix's keys are unit vectors, so its scores are q itself."""
    query, text = scores.split([tokens, scores.shape[-1] - tokens], dim=-1)
    return torch.cat([nn.functional.elu(query), torch.softmax(text, dim=-1)], dim=-1)


class PrefixTuningPlus(DeepPrefixMethod):
    """A memory beside the attention of each layer."""

    options: PrefixPlus

    def __init__(self, options: PrefixPlus, shape: BackboneShape) -> None:
        """Create M (L, H, k, k) for every chosen site."""
        super().__init__(options, shape)
        self.memory = nn.ParameterDict()
        for site, layout in self.layouts.items():
            at = layout.shape
            self.memory[site] = nn.Parameter(torch.zeros(at.layers, at.heads, at.head_dim, at.head_dim))

    def site_prefix(self, site: str) -> KeyValue:
        """See the base class: k tokens, whose keys are unit vectors and whose values are the rows of M."""
        memory = self.memory[site].unsqueeze(0)
        keys = torch.eye(memory.shape[-1], device=memory.device).expand_as(memory)
        return KeyValue(keys, memory, attend=outside_softmax)
