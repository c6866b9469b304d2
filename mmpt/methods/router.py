"""Routers: from an example's mean word embedding to a distribution over R routes (MMPT section 3; SMoP section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpt.methods.options import RouterOptions


class Router(nn.Module):
    """``r(x) = softmax(noise(W·m(x)/τ))`` with W (R, d), without bias, orthogonal at the start.

    While training, ``noise`` scales every logit by ``1 + σ·ε``, ε ~ N(0, 1), the scale detached
    (``perturb_router``), or else drops logits out. There is no noise in evaluation.
    """

    def __init__(self, width: int, options: RouterOptions) -> None:
        """Create W for a model of the given width d."""
        super().__init__()
        self.options = options
        self.weight = nn.Parameter(torch.empty(options.num_routes, width))
        nn.init.orthogonal_(self.weight)

    def forward(self, mean: Tensor) -> Tensor:
        """Route probabilities (B, R) of mean word embeddings (B, d)."""
        logits = mean.to(self.weight.dtype) @ self.weight.T / self.options.router_temperature
        if self.training and self.options.perturb_router:
            noise = 1.0 + self.options.router_noise * torch.randn_like(logits)
            # the forward value is z·noise, the gradient that of z alone
            logits = logits + (logits * (noise - 1.0)).detach()
        elif self.training:
            logits = nn.functional.dropout(logits, self.options.router_dropout)
        return torch.softmax(logits, dim=-1)

    def balance(self, probs: Tensor) -> Tensor | None:
        """What ``load_balance`` adds to the loss for route probabilities (B, R); None where nothing."""
        coefficient = self.options.load_balance
        return coefficient * balance_loss(probs) if self.training and coefficient > 0 else None


def route_gates(probs: Tensor, top_k: int) -> Tensor:
    """Route probabilities (B, R) with all but an example's own top-k set to zero; gates are not renormalised."""
    gates, chosen = probs.topk(top_k, dim=-1)
    return torch.zeros_like(probs).scatter(-1, chosen, gates)


def chosen_route(probs: Tensor) -> Tensor:
    """One for each example's likeliest route, zero elsewhere, (B, R), with the gradient of the probabilities (B, R)."""
    chosen = torch.zeros_like(probs).scatter(-1, probs.argmax(dim=-1, keepdim=True), 1.0)
    return chosen + (probs - probs.detach())


def balance_loss(probs: Tensor) -> Tensor:
    """How unevenly examples are spread over routes, (): R·Σ_r f_r·mean(r_r), 1 where they are spread evenly.

    f_r is the share of the batch whose likeliest route is r (Fedus et al. 2021, Switch Transformers, equation 4);
    probabilities are (B, R).
    """
    routes = probs.shape[1]
    shares = chosen_route(probs.detach()).mean(dim=0)
    return routes * (shares * probs.mean(dim=0)).sum()
