"""MEPT, mixture of expert prompt tuning (Zeng et al. 2025, arXiv 2509.00996): routed prompts in every encoder layer.

Layer l of the encoder gets, in place of what the layer below made of its prompt,

    P_l(x) = Σ_{r in top-k of r_l(x)} r_l(x)_r·E_{l,r} + S_l

with experts E (L, R, v, d), a shared expert S (L, v, d), and r_l as in :mod:`mmpt.methods.router` on the mean over the
text of the states that enter the layer, each divided by its root mean square. Gates are not renormalised. The logs show
the last layer's routes.

Equation, v = 10, R = 4, top-1, a shared expert of v tokens, Xavier's initial scale (0.05 at d = 768) and the routers'
noise (as its README has it) are those of the published code, which is a fork of SMoP's. Two things differ: it averages
over padding too, so that an example depends on its batch; and under "all layers" it is given a prompt at the input that
its first layer replaces unused. It has one learning rate for all, without a stated value; those here are SMoP's.
Compared with that code and the paper's abstract, not with the rest of its text.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mmpt.errors import ConfigError
from mmpt.methods.base import BackboneShape, Contribution, Method, StartingValues, mean_embedding, starting_ids
from mmpt.methods.mept.options import MEPT
from mmpt.methods.router import Router, route_gates


class MixtureOfExpertPrompts(Method):
    """Routed prompts in each layer of the encoder, and one that all inputs share."""

    options: MEPT

    def __init__(self, options: MEPT, shape: BackboneShape) -> None:
        """Create experts, shared expert and routers, as far as the options use them.

        Raises:
            ConfigError: The backbone has no encoder before a decoder.
        """
        super().__init__(options, shape)
        if "encoder" not in shape.sites:
            raise ConfigError(
                "method=mept puts prompts into the encoder's layers, and this backbone is no encoder-decoder"
            )
        layers, tokens = shape.sites["encoder"].layers, options.num_virtual_tokens
        self.prompts = nn.ParameterDict({"experts": self._random(layers, options.num_routes * tokens)})
        if options.shared_expert:
            self.shared = nn.ParameterDict({"expert": self._random(layers, tokens)})
        if options.num_routes > 1:
            self.router = nn.ModuleList([Router(shape.width, options) for _ in range(layers)])

    def _random(self, layers: int, tokens: int) -> nn.Parameter:
        return nn.Parameter(self.options.spread * torch.randn(layers, tokens, self.shape.width))

    def initialise(self, backbone: StartingValues) -> None:
        """See the base class: every layer starts from the same embeddings."""
        tables = [self.prompts["experts"], *([self.shared["expert"]] if self.options.shared_expert else [])]
        ids = starting_ids(self.options, backbone, sum(table.shape[1] for table in tables))
        if ids is not None:
            for table, part in zip(tables, ids.split([table.shape[1] for table in tables]), strict=True):
                table.data.copy_(backbone.embeddings(part).expand_as(table))

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class."""
        return Contribution(layer_prompts=_RoutedPrompts(self))

    def prompt(self, layer: int, mean: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """One layer's prompt (B or 1, v, d), its routes (B, R), and what ``load_balance`` adds, from means (B, d)."""
        shared = self.shared["expert"][layer] if self.options.shared_expert else 0.0
        experts = self.prompts["experts"][layer].unflatten(0, (self.options.num_routes, -1))  # (R, v, d)
        if self.options.num_routes == 1:
            return experts + shared, None, None
        router: Router = self.router[layer]  # type: ignore[assignment]
        probs = router(mean)
        routed = torch.einsum("br,rvd->bvd", route_gates(probs, self.options.top_k), experts)
        return routed + shared, probs, router.balance(probs)


class _RoutedPrompts:
    """The prompts of one pass through the encoder."""

    def __init__(self, method: MixtureOfExpertPrompts) -> None:
        self.method, self.tokens = method, method.options.num_virtual_tokens
        self.probs: Tensor | None = None
        self.balance: list[Tensor] = []

    def at(self, layer: int, states: Tensor, mask: Tensor) -> Tensor:
        """See :class:`mmpt.methods.base.LayerPrompts`."""
        states = states.float()
        normed = states * torch.rsqrt(states.square().mean(dim=-1, keepdim=True) + 1e-6)
        prompt, self.probs, balance = self.method.prompt(layer, mean_embedding(normed, mask))
        self.balance += [] if balance is None else [balance]
        return prompt.expand(len(states), -1, -1)

    def finish(self, contribution: Contribution) -> Contribution:
        """See :class:`mmpt.methods.base.LayerPrompts`: the last layer's routes, and the mean over layers' balance."""
        balance = torch.stack(self.balance).mean() if self.balance else None
        return replace(contribution, route_probs=self.probs, auxiliary_loss=balance)
