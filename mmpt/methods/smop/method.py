"""SMoP, sparse mixture of prompts (EMNLP 2023): R short soft prompts, of which a router picks each input's own.

prompt(x) = Σ_{r in top-k of r(x)} r(x)_r·E_r with E (R, v, d), before the encoder's input embeddings. Gates are not
renormalised. One example's prompt depends on that example alone; the published code's top-1 sum over the whole batch is
not reproduced (docs/fidelity.md). ``router_standardize``: the router reads the mean word embedding minus its mean, over
its standard deviation, of the training texts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmpt.methods.base import BackboneShape, Contribution
from mmpt.methods.prompt.method import PromptTuning
from mmpt.methods.router import Router, route_gates
from mmpt.methods.smop.options import SMoP


class SparseMixtureOfPrompts(PromptTuning):
    """Routed soft prompts at the encoder's input."""

    options: SMoP

    def __init__(self, options: SMoP, shape: BackboneShape) -> None:
        """Create the prompts (R·v, d), and a router where there is a choice."""
        super().__init__(options, shape, options.num_routes)
        if options.num_routes > 1:
            self.router = Router(shape.width, options)

    @property
    def reads_input(self) -> bool:
        """See the base class."""
        return self.options.num_routes > 1

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class."""
        table = self.prompt().unflatten(0, (self.options.num_routes, -1))  # (R, v, d)
        if self.options.num_routes == 1:
            return Contribution(prompt=table)
        if mean is None:
            raise ValueError("smop routes by the source's mean word embedding; give it")
        probs = self.router(mean)
        prompt = torch.einsum("br,rvd->bvd", route_gates(probs, self.options.top_k), table)
        return Contribution(prompt=prompt, route_probs=probs, auxiliary_loss=self.router.balance(probs))
