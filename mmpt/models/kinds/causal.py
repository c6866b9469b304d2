"""Decoder-only models: prompt, source and target are one sequence, and a target's logits are those of the token before.

Rows are packed: a target follows its source at once, and padding comes last (before the source where text is
generated). So positions and sliding windows are those of the example alone, whatever it is batched with.

Candidates are ranked in one pass over B·C rows, the source anew for each: to keep its keys and values for all of them
would leave padding between source and target, which a sliding window counts.

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

from mmpt.attention.prefix import for_batch, shift_of
from mmpt.data.collate import IGNORED
from mmpt.data.encode import Continuation
from mmpt.methods.base import Contribution
from mmpt.models.adapted import Encoded, LabelStates
from mmpt.models.insertion import gathered
from mmpt.models.kinds.text import TextModel
from mmpt.models.partial_forward import below, resumed
from mmpt.models.parts import embed, refuse_positions, word_embeddings


class DecoderOnly(TextModel):
    """A frozen decoder with a method; :class:`Encoded` has what the first layer reads of prompt and source."""

    READING = Continuation

    def encode(self, input_ids: Tensor, attention_mask: Tensor, adapter_names: Sequence[str] | None = None) -> Encoded:
        """See the base class; no layer has run."""
        with self.hooks.using(self.method, adapter_names):
            rows, source = self.hooks.read(embed(self.backbone, input_ids), attention_mask), self.hooks.source
        return Encoded(rows, source.widened(attention_mask, rows.shape[1]), source.contribution)

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See the base class."""
        with self.hooks.using(self.method):
            output = self.backbone.get_decoder()(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states

    def constants(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class: states of each source, and behind them of its continuations (B, C, V)."""
        examples, count, _ = batch["continuations"].shape
        read = batch["continuations"].flatten(0, 1)  # (B·C, V)
        source = Encoded(embed(self.backbone, batch["input_ids"]), batch["attention_mask"], Contribution())
        rows, mask = self._rows(source, read)
        refuse_positions(self.backbone, rows.shape[1])
        inputs = {"inputs_embeds": rows, "attention_mask": mask, "use_cache": False}
        with self.hooks.given(Contribution()):
            states = below(self.backbone, "self", self.first_trained, inputs).unflatten(0, (examples, count))
        ends = source.mask.sum(dim=1).tolist()
        tokens = (read != IGNORED).sum(dim=1).view(examples, count).tolist()
        joined = [
            torch.cat([each[0, :end], *(row[end : end + more] for row, more in zip(each, many, strict=True))])
            for each, end, many in zip(states, ends, tokens, strict=True)
        ]
        return pad_sequence(joined, batch_first=True)

    def resume(self, batch: Mapping[str, Tensor]) -> Encoded:
        """See the base class; with embeddings too, from which text is generated."""
        embeddings, contribution = embed(self.backbone, batch["input_ids"]), self.contribute(batch)
        label_states = LabelStates(batch["states"], batch["continuations"])
        return Encoded(embeddings, batch["attention_mask"], contribution, label_states)

    def decode(self, encoded: Encoded, labels: Tensor) -> Tensor:
        """See the base class."""
        read = labels[:, :-1].masked_fill(labels[:, 1:] == IGNORED, IGNORED)  # nothing follows a label's last token
        rows, mask = self._rows(encoded, read)
        refuse_positions(self.backbone, rows.shape[1] + shift_of(encoded.contribution.prefixes))
        ends = for_batch(encoded.mask.sum(dim=1, keepdim=True), len(labels))
        positions = ends - 1 + torch.arange(labels.shape[1], device=labels.device)  # (B', U), whose logits are wanted
        model: Any = self.backbone
        begin: AbstractContextManager[None] = nullcontext()
        if encoded.label_states is not None:
            begin = resumed(model, "self", rows, self.first_trained)
            rows = rows.new_zeros(*rows.shape[:2], word_embeddings(model).embedding_dim)  # which no layer reads

        def select(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (gathered(args[0], positions.clamp(max=rows.shape[1] - 1)), *args[1:])

        hook = model.get_output_embeddings().register_forward_pre_hook(select, prepend=True)  # before only_labelled's
        with hook, begin, self.hooks.given(encoded.contribution):
            logits: Tensor = model(inputs_embeds=rows, attention_mask=mask, use_cache=False).logits
        return logits

    def _rows(self, encoded: Encoded, read: Tensor) -> tuple[Tensor, Tensor]:
        """Sources and targets (B', U) in one row, as the first layer reads them: (B', S+U, d), and its mask."""
        ends = for_batch(encoded.mask.sum(dim=1, keepdim=True), len(read))
        more, width = (read != IGNORED).sum(dim=1, keepdim=True), encoded.states.shape[1] + read.shape[1]
        if encoded.label_states is not None:
            first = ends + encoded.label_states.starts(read)
            return _packed(for_batch(encoded.label_states.states, len(read)), ends, first, more, width)
        states = torch.cat([for_batch(encoded.states, len(read)), embed(self.backbone, read.clamp(min=0))], dim=1)
        return _packed(states, ends, torch.full_like(ends, encoded.states.shape[1]), more, width)

    @torch.no_grad()
    def generate(self, encoded: Encoded, **options: Any) -> Tensor:
        """Generated ids (B, U), without the source; ``options`` go to the backbone's own ``generate``.

        Raises:
            ValueError: Another cache than ``dynamic`` or ``static`` is asked for.
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


def _packed(states: Tensor, ends: Tensor, first: Tensor, more: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Put targets of ``more`` tokens, which begin at ``first``, right after their sources' ``ends``, each (B, 1)."""
    index = torch.arange(width, device=states.device)  # (S+U,)
    order = torch.where(index < ends, index, index - ends + first).clamp(max=states.shape[1] - 1)
    return gathered(states, order), (index < ends + more).long()
