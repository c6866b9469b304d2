"""Decoder-only models: prompt, source and target are one sequence, and a target's logits are those of the token before.

Rows are packed: a target follows its source at once, and padding comes last (before the source where text is
generated). So positions and sliding windows are those of the example alone, whatever it is batched with.

Candidates are ranked in one pass over B·C rows, the source anew for each: to keep its keys and values for all of them
would leave padding between source and target, which a sliding window counts.

Letters: B batch, S prompt and source tokens, U target tokens, C candidate labels, V vocabulary, d model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmpt.data.collate import IGNORED, Continuation
from mmpt.methods.base import Contribution, Frontier
from mmpt.models.adapted import Encoded
from mmpt.models.backbone import embed, refuse_positions
from mmpt.models.inject import shift_of
from mmpt.models.kinds.text import TextModel


class DecoderOnly(TextModel):
    """A frozen decoder with a method; :class:`Encoded` has what the first layer reads of prompt and source."""

    READING = Continuation

    def encode_embeddings(self, embeddings: Tensor, mask: Tensor, contribution: Contribution) -> Encoded:
        """See the base class; no layer has run."""
        return Encoded(embeddings, mask, contribution)

    @property
    def frontier(self) -> Frontier:
        """See the base class."""
        return Frontier(None, "a decoder-only model reads source and label together, in every layer")

    def constants(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        raise ValueError(f"nothing is constant: {self.frontier.reason}")

    def resume(self, states: Tensor, attention_mask: Tensor, means: Tensor) -> Encoded:
        """See the base class."""
        raise ValueError(f"nothing is constant: {self.frontier.reason}")

    def decode(self, encoded: Encoded, labels: Tensor) -> Tensor:
        """See the base class."""
        states, mask = (
            part.repeat_interleave(labels.shape[0] // part.shape[0], dim=0) for part in (encoded.states, encoded.mask)
        )
        self.injection.set(encoded.contribution.prefixes)
        lengths = mask.sum(dim=1, keepdim=True)  # (B', 1)
        read = labels[:, :-1]  # nothing follows the last token
        rows, real = _packed(states, lengths, embed(self.backbone, read.clamp(min=0)), (read != IGNORED).sum(dim=1))
        refuse_positions(self.backbone, rows.shape[1] + shift_of(encoded.contribution.prefixes))
        places = lengths - 1 + torch.arange(labels.shape[1], device=labels.device)  # (B', U), whose logits are wanted
        model: Any = self.backbone

        def select(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (_rows(args[0], places.clamp(max=rows.shape[1] - 1)), *args[1:])

        hook = model.get_output_embeddings().register_forward_pre_hook(select, prepend=True)  # before only_labelled's
        try:
            logits: Tensor = model(inputs_embeds=rows, attention_mask=real, use_cache=False).logits
        finally:
            hook.remove()
        return logits

    @torch.no_grad()
    def generate(self, encoded: Encoded, **options: Any) -> Tensor:
        """Generated ids (B, U), without the source; ``options`` go to the backbone's own ``generate``.

        Raises:
            ValueError: Another cache than ``dynamic`` or ``static`` is asked for.
        """
        wish = options.pop("cache_implementation", None)
        if wish not in (None, "dynamic", "static"):
            raise ValueError(f"cache_implementation={wish} isn't supported with prefixes; choose dynamic or static")
        if wish == "static":
            options["cache_implementation"] = wish
        self.injection.set(encoded.contribution.prefixes)
        longest = encoded.states.shape[1]
        shift = longest - encoded.mask.sum(dim=1, keepdim=True)  # (B, 1), padding that goes to the front
        order = torch.arange(longest, device=shift.device) - shift
        rows, mask = _rows(encoded.states, order.clamp(min=0)), (order >= 0).to(encoded.mask.dtype)
        first = shift_of(encoded.contribution.prefixes)
        refuse_positions(self.backbone, first + longest + options.get("max_new_tokens", 0))
        model: Any = self.backbone
        pad = model.config.pad_token_id
        options.setdefault("pad_token_id", model.config.eos_token_id if pad is None else pad)
        ids: Tensor = model.generate(inputs_embeds=rows, attention_mask=mask, **options)
        return ids

    def read(self, ids: Tensor) -> None:
        """See the base class."""
        self.backbone(input_ids=ids, use_cache=False)


def _packed(states: Tensor, lengths: Tensor, targets: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """Put targets right after sources.

    Args:
        states: (B, S, d), a source at the left.
        lengths: Tokens of each source (B, 1).
        targets: (B, U, d), a target at the left.
        more: Tokens of each target (B,).

    Returns:
        (B, S+U, d), and its mask (B, S+U).
    """
    source = states.shape[1]
    place = torch.arange(source + targets.shape[1], device=states.device)  # (S+U,)
    order = torch.where(place < lengths, place, place - lengths + source).clamp(max=len(place) - 1)
    return _rows(torch.cat([states, targets], dim=1), order), (place < lengths + more.unsqueeze(1)).long()


def _rows(states: Tensor, order: Tensor) -> Tensor:
    """Tokens (B, N, d) of states (B, T, d), in the order (B, N)."""
    return states.gather(1, order.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
