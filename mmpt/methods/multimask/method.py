"""Multi-mask prefix tuning (Multi-mask Prefix Tuning, PACLIC 2024): one shared prefix, R masks over it, one router.

For an example x with route probabilities r(x) (:mod:`mmpt.methods.router`), at each site:

- shared part E0 (S, 2L, H·k), route prompts E (R, v, 2L, H·k), own gates g(x) = the top-k of r(x), others zero;
- ``share_type``: ``only`` e = E0; ``add`` e = E0 + Σ_r g_r·E_r; ``prepend`` e = [E0; Σ_r g_r·E_r]; ``none`` Σ alone;
- ``mask=per_route``: M (R, P, L), blended m(x) = Σ_r r(x)_r·M_r, then e[p, l] is multiplied by sigmoid(m(x)[p, l]/τ);
- ``mask=single``: one mask (S, L) for the shared part, and one (v, L) a route for what is appended;
- ``router_input``: r reads the mean word embedding of x, with ``encoder`` the mean of the encoder's output, or with
  ``layer_below`` that of the states that enter the first layer with a prefix (``layers=last_N``; of a decoder's sites,
  the encoder's output); decoder-only models read the prompt alone;
- ``router_standardize``: r reads that minus its mean, over its standard deviation, of the training texts;
- ``router_temperature`` divides the router's logits; ``lr.router`` is its own learning rate;
- ``routing=straight_through``: the likeliest route alone, one in the pass forward, with the gradient of r(x) backward;
- ``mask_init=apart``: M_r starts at the mean where (p + l) mod R = r, and at minus the mean elsewhere, so that each
  route sees another part of the prefix;
- ``load_balance``: c·R·Σ_r f_r·mean r_r is added to the loss (:func:`mmpt.methods.router.balance_loss`);
- ``mask_granularity``, ``mask_temperature``, ``prefix_dropout`` (of e before its masks) and ``gate``: as in
  :mod:`mmpt.methods.prefix.method`.

The published setting is ``only`` with ``per_route``, masks by layer, τ = 1, the mean word embedding as it is, no
dropout of the prefix and no term in the loss. The gates are an example's own: the published code's sum over the
batch's selections is not reproduced (docs/fidelity.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpt.attention.prefix import KeyValue
from mmpt.errors import ConfigError
from mmpt.methods.base import BackboneShape, Contribution
from mmpt.methods.deep_prefix import DeepPrefixMethod
from mmpt.methods.multimask.options import MultiMask
from mmpt.methods.router import Router, chosen_route, route_gates


class MultiMaskPrefixTuning(DeepPrefixMethod):
    """A shared prefix seen through masks that a router blends per input."""

    options: MultiMask
    prompts: nn.ParameterDict  # route prompts E by site, (R·v, 2L·H·k)

    def __init__(self, options: MultiMask, shape: BackboneShape) -> None:
        """Create prefix, route prompts, masks and router, as far as the options use them."""
        super().__init__(options, shape)
        groups = options.groups()
        if "prompts" in groups:
            self.prompts = self.new_tables(options.num_routes * options.num_route_tokens)
        if "masks" in groups:
            self.masks = nn.ParameterDict()
            for site in options.sites:
                self._add_masks(site)
        if "router" in groups:
            self.router = Router(shape.width if options.reads == "embedding" else shape.state_width, options)
        site = shape.first_site
        if options.reads == "layer_below" and self.layouts[site].shape.layers == shape.sites[site].layers:
            raise ConfigError(
                f"method.router_input=layer_below: no layer lies below method.layers={options.layers} of this "
                "backbone; give fewer layers, or set method.router_input=embedding"
            )

    def _add_masks(self, site: str) -> None:
        options = self.options
        shared, routed = options.num_virtual_tokens, options.num_route_tokens
        if options.mask == "per_route":
            tokens = {"prepend": shared + routed, "none": routed}.get(options.share_type, shared)
            self.masks[site] = mask = self.new_mask(site, options.num_routes, tokens)
            if options.mask_init == "apart":
                _close_other_parts(mask, options.mask_init_mean)
            return
        if options.share_type != "none":
            self.masks[site] = self.new_mask(site, shared)
        if options.share_type in ("prepend", "none"):
            self.masks[f"{site}_routes"] = self.new_mask(site, options.num_routes, routed)

    @property
    def reads_input(self) -> bool:
        """See the base class."""
        return self.options.has_router

    def _probs(self, mean: Tensor | None) -> Tensor:
        """Route probabilities (B, R), or (1, R) uniform where no router exists."""
        if not self.options.has_router:
            routes = self.options.num_routes
            return torch.full((1, routes), 1.0 / routes, device=next(self.parameters()).device)
        if mean is None:
            raise ValueError("multimask routes by a mean of the source; give it")
        return self.router(mean)

    def _routed(self, site: str, gates: Tensor) -> Tensor:
        """Σ_r g_r·E_r with the routes' own masks, (B, v, 2L, H·k)."""
        layout = self.layouts[site]
        table = layout.slots(self.prompts[site]).unflatten(0, (self.options.num_routes, -1))  # (R, v, 2L, H·k)
        if self.options.mask == "single" and f"{site}_routes" in self.masks:
            table = layout.gate(table, self.masks[f"{site}_routes"])
        return torch.einsum("br,r...->b...", gates, table)

    def _slots(self, site: str, gates: Tensor) -> Tensor:
        """The prefix of each example, (B or 1, P, 2L, H·k), under its own mask where ``mask=single``."""
        options, layout = self.options, self.layouts[site]
        single = options.mask == "single" and options.share_type != "none"
        if options.share_type == "none":
            return self._routed(site, gates)
        shared = layout.slots(self.prefix[site]).unsqueeze(0)
        if options.share_type == "add":
            shared = shared + self._routed(site, gates)
        if single:
            shared = layout.gate(shared, self.masks[site])
        if options.share_type == "prepend":
            routed = self._routed(site, gates)
            shared = torch.cat([shared.expand(routed.shape[0], -1, -1, -1), routed], dim=1)
        return shared

    def _prefix(self, site: str, probs: Tensor, gates: Tensor) -> KeyValue:
        """One site's prefix, seen through the blend of the routes' masks (before the sigmoid) where each has one."""
        slots = self.dropped(self._slots(site, gates))
        blended = torch.einsum("br,r...->b...", probs, self.masks[site]) if self.options.mask == "per_route" else None
        return self.gated(site, self.layouts[site].keys_values(slots, blended))

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class."""
        probs = self._probs(mean)
        weights = chosen_route(probs) if self.options.routing == "straight_through" else probs
        gates = route_gates(weights, self.options.top_k)
        prefixes = {site: self._prefix(site, weights, gates) for site in self.layouts}
        if not self.options.has_router:
            return Contribution(prefixes)
        return Contribution(prefixes, route_probs=probs, auxiliary_loss=self.router.balance(probs))


def _close_other_parts(mask: nn.Parameter, mean: float) -> None:
    """Let each route of a mask (R, P, L, …), drawn around ``mean``, start with the part (p + l) mod R open alone."""
    routes, tokens, layers = mask.shape[:3]
    part = (torch.arange(tokens).unsqueeze(1) + torch.arange(layers)) % routes  # (P, L)
    own = part == torch.arange(routes)[:, None, None]
    with torch.no_grad():
        mask.sub_(2 * mean * (~own).to(mask.dtype).view(*own.shape, *[1] * (mask.dim() - 3)))
