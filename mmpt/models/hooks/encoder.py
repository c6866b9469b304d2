"""Encoders with a classification head: every pass reads its source; a prompt follows the first token, which heads read.

Letters: B batch, T source tokens, P prompt tokens.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn import functional as F

from mmpt.models.hooks.base import Hooks

FIRST = 1  # tokens before the prompt


class EncoderHooks(Hooks):
    """The hooks of the model itself do it all."""

    def _install(self) -> None:
        """See the base class."""

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        _, named = super()._before_model(module, args, kwargs)
        if self._given:
            self.injection.set(self.source.contribution.prefixes)
            return (), named
        embeddings, mask = self._embeddings(named)
        rows, insertion = self.read(embeddings, mask, FIRST, named.get("token_type_ids")), self.source.insertion
        self.injection.set(self.source.contribution.prefixes)
        if rows is embeddings:
            return (), named
        named |= {"input_ids": None, "inputs_embeds": rows}
        if insertion is not None:
            named["attention_mask"] = None if mask is None else insertion.mask(mask)
            if named.get("token_type_ids") is not None:  # a prompt belongs to the first text
                named["token_type_ids"] = F.pad(named["token_type_ids"], (insertion.prompt, 0))
            if named.get("position_ids") is not None:
                named["position_ids"] = insertion.positions(named["position_ids"])
        return (), named
