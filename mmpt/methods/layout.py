"""From prefix parameters to keys and values, in the two layouts, and masks over them.

A site's prefix is kept as slots (P, 2L, H·k), as in the published code. Layout ``per_layer`` gives layer l the slots 2l
(keys) and 2l+1 (values), both masked by column l. Layout ``paper`` is in :mod:`mmpt.models.paper`.

Letters: B batch, P prefix tokens, L layers with a prefix (the last ones of a site), H heads, k head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmpt.errors import ConfigError
from mmpt.methods.base import BackboneShape, Frontier
from mmpt.methods.options import PrefixShape
from mmpt.models import paper
from mmpt.models.inject import KeyValue, SiteShape


class Layout:
    """How the slots of one site become its layers' keys and values."""

    def __init__(self, name: str, shape: SiteShape) -> None:
        """Work out the slots.

        Args:
            name: ``per_layer``, ``paper``, or ``peft``: as ``per_layer``, with the text behind the prefix.
            shape: The site's attention.
        """
        layers = shape.layers
        self.shape = shape
        self.positioned, self.shifts = name == "paper", name == "peft"
        if self.positioned:
            self.key_slots, self.value_slots = paper.key_slots(layers), paper.value_slots(layers)
            self.columns = paper.mask_columns(layers)
        else:
            self.key_slots, self.value_slots = list(range(0, 2 * layers, 2)), list(range(1, 2 * layers, 2))
            self.columns = [slot // 2 for slot in range(2 * layers)]

    def slots(self, table: Tensor) -> Tensor:
        """View a parameter (…, 2L·H·k) as (…, 2L, H·k)."""
        return table.unflatten(-1, (2 * self.shape.layers, self.shape.width))

    def gate(self, slots: Tensor, mask: Tensor) -> Tensor:
        """Multiply slots (…, P, 2L, H·k) by ``sigmoid(mask)``, mask (…, P, L); leading axes broadcast."""
        return slots * torch.sigmoid(mask)[..., self.columns].unsqueeze(-1)

    def keys_values(self, slots: Tensor, mask: Tensor | None = None) -> KeyValue:
        """Turn slots (B or 1, P, 2L, H·k) into keys and values (B or 1, L, H, P, k).

        Args:
            slots: The prefix.
            mask: (B or 1, P, L); keys and values are to be multiplied by its sigmoid.
        """
        heads = slots.unflatten(-1, (self.shape.heads, self.shape.head_dim))  # (B, P, 2L, H, k)
        key, value = (heads[:, :, chosen].permute(0, 2, 3, 1, 4) for chosen in (self.key_slots, self.value_slots))
        shift = slots.shape[1] if self.shifts else 0
        if mask is None:
            return KeyValue(key, value, self.positioned, shift=shift)
        gate = torch.sigmoid(mask).transpose(1, 2)  # (B, L, P)
        key_gate, value_gate = (
            gate[:, [self.columns[slot] for slot in chosen]] for chosen in (self.key_slots, self.value_slots)
        )
        return KeyValue(key, value, self.positioned, key_gate, value_gate, shift=shift)

    def from_keys_values(self, key: Tensor, value: Tensor) -> Tensor:
        """Flatten keys and values, each (L, H, P, k), to a parameter (P, 2L·H·k); layout ``per_layer`` only.

        Of more layers than the layout has, the last ones are taken.
        """
        both = torch.stack([key, value], dim=1)[-self.shape.layers :]  # (L, 2, H, P, k)
        return both.permute(3, 0, 1, 2, 4).reshape(key.shape[2], -1).contiguous()


def layouts(options: PrefixShape, shape: BackboneShape) -> dict[str, Layout]:
    """The layout of every chosen site, with the layers that ``options.layers`` chooses.

    Raises:
        ConfigError: A site has fewer layers.
    """
    found: dict[str, Layout] = {}
    for site in options.sites:
        whole = shape.sites[site]
        layers = whole.layers if options.layers == "all" else int(options.layers.removeprefix("last_"))
        if layers > whole.layers:
            raise ConfigError(
                f"method.layers={options.layers}: site {site} of this backbone has {whole.layers} layers; give at most "
                f"last_{whole.layers}, or all"
            )
        found[site] = Layout(options.layout, replace(whole, layers=layers))
    return found


def new_gates(layouts: Mapping[str, Layout]) -> nn.ParameterDict:
    """Gates g (L,) by site for ``gate=true``: attention is A(q, text) + g_l·A(q, prefix), with g zero at the start."""
    return nn.ParameterDict({site: nn.Parameter(torch.zeros(layout.shape.layers)) for site, layout in layouts.items()})


def frontier(layouts: Mapping[str, Layout], shape: BackboneShape) -> Frontier:
    """The first encoder layer with a prefix; all layers are constant without one."""
    total = shape.first_stack.layers
    site = "encoder" if "encoder" in shape.sites else "self"
    prefixed = layouts[site].shape.layers if site in layouts else 0
    if prefixed == total:
        return Frontier(None, f"method.sites has {site}")
    return Frontier(total - prefixed)
