"""Routers: from an example's mean word embedding to a distribution over R routes (MMPT section 3; SMoP section 3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmpt.errors import ModelError
from mmpt.methods.options import InputRouterOptions, RouterOptions

ROUNDING = 1e-5  # a value that differs by less than this share of itself between texts is the same in all


class Router(nn.Module):
    """``r(x) = softmax(noise(W·m(x)/τ))`` with W (R, d), without bias, orthogonal at the start.

    With ``router_standardize`` W reads (m(x) - μ)/σ, with mean μ (d,) and standard deviation σ (d,) of the training
    texts (:meth:`standardize`): mean embeddings of all texts share a large part, which tells a router nothing.

    While training, ``noise`` scales every logit by ``1 + σ·ε``, ε ~ N(0, 1), the scale detached
    (``perturb_router``), or else drops logits out. There is no noise in evaluation.
    """

    mean: Tensor  # (d,), and so is the next one, where the router standardizes what it reads
    deviation: Tensor

    def __init__(self, width: int, options: RouterOptions) -> None:
        """Create W for a model of the given width d."""
        super().__init__()
        self.options = options
        self.standardizes = isinstance(options, InputRouterOptions) and options.router_standardize
        self.ready = not self.standardizes  # whether μ and σ are those of training texts
        self.weight = nn.Parameter(torch.empty(options.num_routes, width))
        nn.init.orthogonal_(self.weight)
        if self.standardizes:
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("deviation", torch.ones(width))
            self.register_load_state_dict_post_hook(_loaded)

    def standardize(self, batches: Iterable[Tensor]) -> None:
        """Take μ and σ from what is read of the training texts, in batches (B, d).

        σ is 1 where all texts have the same value up to rounding. ModelError: there is no text.
        """
        count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for means in batches:
            values = means.to(self.mean.device, torch.float64)
            count, total, squares = count + len(values), values.sum(dim=0) + total, values.square().sum(dim=0) + squares
        if count == 0:
            raise ModelError("a router cannot be standardized without texts; give the training texts")
        mean, power = total / count, squares / count
        variance = power - mean.square()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(variance > ROUNDING**2 * power, variance, 1.0).sqrt())
        self.ready = True

    def forward(self, mean: Tensor) -> Tensor:
        """Route probabilities (B, R) of mean word embeddings (B, d)."""
        if self.training and not (self.ready or self.weight.is_meta):  # which has shapes alone
            raise ModelError(
                "method.router_standardize=true reads differences from the training texts, which it has not been "
                "given; call mmpt.standardize_router(model, batches) before training"
            )
        if self.standardizes:
            mean = (mean - self.mean) / self.deviation
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


def _loaded(router: nn.Module, keys: object) -> None:
    assert isinstance(router, Router)
    router.ready = True


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
