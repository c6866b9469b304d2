"""From prefix parameters to keys and values, in the two layouts, and masks over them.

A site's prefix is stored as slots (P, 2L, H·k), as in the published code. Layout ``per_layer`` gives layer l the slots
2l (keys) and 2l+1 (values), both masked by column l. Layout ``paper`` is the published
one: that code hands T5 a flat prefix that is doubled and split by four, of which T5 reads the first two parts per layer
(docs/fidelity.md). So decoder layer l has K from slot 4l mod 2L and V from the next one, slot j is masked by column j
mod L, and the prefix has positions (:mod:`mmpt.attention.positions`).

A mask has an entry for each token and layer (P, L), for each of their heads (P, L, H), or for their keys and their
values (P, L, 2): ``mask_granularity`` ``layer``, ``head``, ``key_value``.

Letters: B batch, P prefix tokens, L layers with a prefix (the last ones of a site), H heads, k head width, h H or 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmpt.attention.prefix import KeyValue, SiteShape


class Layout:
    """How the slots of one site become its layers' keys and values."""

    def __init__(self, name: str, shape: SiteShape, granularity: str = "layer", temperature: float = 1.0) -> None:
        """Work out the slots; arguments are the options ``layout``, ``mask_granularity`` and ``mask_temperature``."""
        layers, slots = shape.layers, range(2 * shape.layers)
        self.shape = shape
        self.granularity, self.temperature = granularity, temperature
        self._indices: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}
        self.positioned, self.shifts = name == "paper", name == "peft"
        if self.positioned:
            self.key_slots = [4 * layer % len(slots) for layer in range(layers)]
            self.columns = [slot % layers for slot in slots]
        else:
            self.key_slots = [2 * layer for layer in range(layers)]
            self.columns = [slot // 2 for slot in slots]
        self.value_slots = [slot + 1 for slot in self.key_slots]
        self.table_width = len(slots) * shape.width  # 2L·H·k, of a parameter that has all slots
        more = {"layer": (), "head": (shape.heads,), "key_value": (2,)}[granularity]
        self.mask_size: tuple[int, ...] = (layers, *more)  # of one token's mask: (L,), (L, H) or (L, 2)

    def taken(self, part: Tensor, dim: int, slots: Sequence[int]) -> Tensor:
        """Some slots of a tensor, in the order that is given; ``dim`` counts from the front.

        Their index stays on the device: a list would be copied there, and waited for, in every pass.
        """
        key = tuple(slots), part.device
        if key not in self._indices:
            with torch.inference_mode(False):  # whoever asks first, others train with it
                self._indices[key] = torch.tensor(slots, device=part.device)
        return part[(slice(None),) * dim + (self._indices[key],)]

    def slots(self, table: Tensor) -> Tensor:
        """View a parameter (…, 2L·H·k) as (…, 2L, H·k)."""
        return table.unflatten(-1, (2 * self.shape.layers, self.shape.width))

    def opened(self, mask: Tensor) -> Tensor:
        """What a mask (…, P, L), (…, P, L, H) or (…, P, L, 2) lets through of each slot, (…, P, 2L, h)."""
        opened = torch.sigmoid(mask / self.temperature)
        if self.granularity == "head":
            return self.taken(opened, opened.dim() - 2, self.columns)
        by_slot = self.granularity == "key_value"
        return (opened.flatten(-2) if by_slot else self.taken(opened, opened.dim() - 1, self.columns)).unsqueeze(-1)

    def gate(self, slots: Tensor, mask: Tensor) -> Tensor:
        """Multiply slots (…, P, 2L, H·k) by what a mask lets through; leading axes broadcast."""
        heads = slots.unflatten(-1, (self.shape.heads, self.shape.head_dim))
        return (heads * self.opened(mask).unsqueeze(-1)).flatten(-2)

    def shown(self, name: str, mask: Tensor) -> dict[str, Tensor]:
        """A site's masks (…, P, L, …) for people, each (R, P, L): the mean over heads, keys and values apart."""
        opened = torch.sigmoid(mask.detach() / self.temperature)
        if self.granularity == "key_value":
            shown = {f"{name}_keys": opened[..., 0], f"{name}_values": opened[..., 1]}
        else:
            shown = {name: opened.mean(dim=-1) if self.granularity == "head" else opened}
        return {key: value if value.dim() == 3 else value.unsqueeze(0) for key, value in shown.items()}

    def keys_values(self, slots: Tensor, mask: Tensor | None = None) -> KeyValue:
        """Turn slots (B or 1, P, 2L, H·k) into keys and values (B or 1, L, H, P, k).

        They are to be multiplied by what a mask (B or 1, P, L, …) lets through.
        """
        heads = slots.unflatten(-1, (self.shape.heads, self.shape.head_dim))  # (B, P, 2L, H, k)
        key, value = (
            self.taken(heads, 2, chosen).permute(0, 2, 3, 1, 4) for chosen in (self.key_slots, self.value_slots)
        )
        shift = slots.shape[1] if self.shifts else 0
        if mask is None:
            return KeyValue(key, value, self.positioned, shift=shift)
        gate = self.opened(mask).permute(0, 2, 3, 1)  # (B, 2L, h, P)
        key_gate, value_gate = (self.taken(gate, 1, chosen) for chosen in (self.key_slots, self.value_slots))
        return KeyValue(key, value, self.positioned, key_gate, value_gate, shift=shift)

    def from_keys_values(self, key: Tensor, value: Tensor) -> Tensor:
        """Flatten keys and values, each (L, H, P, k), to a parameter (P, 2L·H·k); layout ``per_layer`` only.

        Of more layers than the layout has, the last ones are taken.
        """
        both = torch.stack([key, value], dim=1)[-self.shape.layers :]  # (L, 2, H, P, k)
        return both.permute(3, 0, 1, 2, 4).reshape(key.shape[2], -1).contiguous()
