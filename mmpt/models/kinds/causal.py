"""Decoder-only models: prompt, source and target are one sequence, and a target's logits are those of the token before.

A row has a source and all its candidates, which do not see each other: the source is computed once for all. Positions
and sliding windows are those of the source and one candidate alone, whatever else is in the row or the batch.

Below the first layer with a prefix, states of source and label are constants: they are cached, and a pass resumes
from them. Generated tokens have no such states, so generation runs all layers.

Letters: B batch, S prompt and source tokens, U target tokens, C candidate labels, V vocabulary, d model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmpt.attention.prefix import shift_of
from mmpt.data.collate import IGNORED
from mmpt.data.encode import Continuation
from mmpt.methods.base import Contribution
from mmpt.models.adapted import Encoded, LabelStates
from mmpt.models.insertion import gathered
from mmpt.models.kinds.text import TextModel
from mmpt.models.partial_forward import below, only_last, resumed
from mmpt.models.parts import embed, refuse_positions, word_embeddings


class DecoderOnly(TextModel):
    """A frozen decoder with a method; :class:`Encoded` has what the first layer reads of prompt and source."""

    READING = Continuation

    def encode(self, input_ids: Tensor, attention_mask: Tensor, adapter_names: Sequence[str] | None = None) -> Encoded:
        """See the base class; no layer has run."""
        with self.hooks.using(self.method, adapter_names):
            rows, source = self.hooks.read(embed(self.backbone, input_ids), attention_mask), self.hooks.source
        return Encoded(rows, source.widened(attention_mask, rows.shape[1]), source.contribution)

    def states(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
        with self.hooks.using(self.method):
            output = self.backbone.get_decoder()(**inputs)
        states: Tensor = output.last_hidden_state
        return states

    def constants(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class: states of each source, and behind them of its continuations (B, C, V)."""
        examples, count, longest = batch["continuations"].shape
        read = batch["continuations"].flatten(0, 1)  # (B·C, V)
        source = Encoded(embed(self.backbone, batch["input_ids"]), batch["attention_mask"], Contribution())
        with self.hooks.given(Contribution()):
            states = below(self.backbone, "self", self.first_trained, {**self._rows(source, read), "use_cache": False})
        there = torch.cat([source.mask.bool(), (read != IGNORED).view(examples, count * longest)], dim=1)
        return pad_sequence([row[real] for row, real in zip(states, there, strict=True)], batch_first=True)

    def resume(self, batch: Mapping[str, Tensor]) -> Encoded:
        """See the base class; with embeddings too, from which text is generated."""
        embeddings, contribution = embed(self.backbone, batch["input_ids"]), self.contribute(batch)
        label_states = LabelStates(batch["states"], batch["continuations"])
        return Encoded(embeddings, batch["attention_mask"], contribution, label_states)

    def decode(self, encoded: Encoded, labels: Tensor, places: Tensor | None = None) -> Tensor:
        """See the base class."""
        read = labels[:, :-1].masked_fill(labels[:, 1:] == IGNORED, IGNORED)  # nothing follows a label's last token
        model, inputs = self.backbone, self._rows(encoded, read)
        rows, (examples, width) = inputs["inputs_embeds"], encoded.mask.shape
        ends = encoded.mask.sum(dim=1).view(examples, 1, 1).expand(-1, len(read) // examples, -1)
        behind = torch.arange(width, rows.shape[1], device=rows.device).view(1, ends.shape[1], read.shape[1])
        behind = behind.expand(examples, -1, -1)
        wanted = torch.cat([ends - 1, behind], dim=2).flatten(1)  # (B, C·U), whose logits
        last = only_last(model, "self", torch.cat([ends[:, 0] - 1, behind.flatten(1)], dim=1))
        begin: AbstractContextManager[None] = nullcontext()
        if encoded.label_states is not None:
            begin = resumed(model, "self", rows, self.first_trained)
            inputs["inputs_embeds"] = rows.new_zeros(*rows.shape[:2], word_embeddings(model).embedding_dim)  # not read

        def select(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (gathered(args[0], wanted), *args[1:])

        head: Any = model.get_output_embeddings()
        hook = head.register_forward_pre_hook(select, prepend=True)  # before only_labelled's
        with hook, begin, last, self.hooks.given(encoded.contribution):
            logits: Tensor = model(**inputs, use_cache=False).logits
        return logits.view(*labels.shape, -1) if logits.dim() == 3 else logits

    def _rows(self, encoded: Encoded, read: Tensor) -> dict[str, Any]:
        """Arguments of a pass over rows of a source and all its targets, each of which sees the source and itself.

        ``read`` has ids of C targets of each source, (B·C, V), -100 for padding. Gives embeddings or states
        (B, S+C·V, d), the mask, and positions: a target's follow its source's.
        """
        (examples, width), longest = encoded.mask.shape, max(read.shape[1], 1)
        ends, count = encoded.mask.sum(dim=1, keepdim=True), len(read) // examples
        refuse_positions(self.backbone, width + read.shape[1] + shift_of(encoded.contribution.prefixes))
        if encoded.label_states is None:
            behind = embed(self.backbone, read.clamp(min=0).view(examples, count * read.shape[1]))
            rows = torch.cat([encoded.states, behind], dim=1)
        else:
            states = encoded.label_states.states
            first = ends.repeat_interleave(count, dim=0) + encoded.label_states.starts(read)  # (B·C, 1)
            order = (first + torch.arange(read.shape[1], device=first.device)).view(examples, count * read.shape[1])
            rows = torch.cat([states[:, :width], gathered(states, order.clamp(max=states.shape[1] - 1))], dim=1)
        index = torch.arange(rows.shape[1], device=rows.device)
        target = (index - width).div(longest, rounding_mode="floor").clamp(min=-1)  # -1: the source
        positions = torch.where(index < width, index, ends + (index - width) % longest)  # (B, N)
        there = torch.cat([encoded.mask.bool(), (read != IGNORED).view(examples, count * read.shape[1])], dim=1)
        seen = (index <= index[:, None]) & ((target < 0) | (target == target[:, None]))  # (N, N)
        mask = self._masks(seen & there[:, None], positions, rows.dtype)
        return {"inputs_embeds": rows, "attention_mask": mask, "position_ids": positions}

    def _masks(self, seen: Tensor, positions: Tensor, dtype: torch.dtype) -> Any:
        """The mask (B, 1, N, N) that is added to scores, or one for each type of layer where some have a window."""
        config = self.backbone.config
        types, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)

        def added(seen: Tensor) -> Tensor:
            return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)[
                :, None
            ]

        if not types or window is None:
            return added(seen)
        near = positions[:, :, None] - positions[:, None] < window
        return {kind: added(seen & near if kind == "sliding_attention" else seen) for kind in set(types)}

    @torch.no_grad()
    def generate(self, encoded: Encoded, **options: Any) -> Tensor:
        """Generated ids (B, U), without the source; ``options`` go to the backbone's own ``generate``.

        ValueError: another cache than ``dynamic`` or ``static`` is wanted.
        """
        longest = encoded.states.shape[1]
        shift = longest - encoded.mask.sum(dim=1, keepdim=True)  # (B, 1), padding that goes to the front
        order = torch.arange(longest, device=shift.device) - shift
        rows, mask = gathered(encoded.states, order.clamp(min=0)), (order >= 0).to(encoded.mask.dtype)
        first = shift_of(encoded.contribution.prefixes)
        refuse_positions(self.backbone, first + longest + options.get("max_new_tokens", 0))
        model: Any = self.backbone
        with self.hooks.given(encoded.contribution):
            ids: Tensor = model.generate(inputs_embeds=rows, attention_mask=mask, **options)
        return ids
