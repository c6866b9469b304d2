"""Encoder-decoders: the source goes through the encoder once, and the decoder reads it for every target.

Letters: B batch, T source tokens, P prompt tokens, U target tokens, C candidate labels, V vocabulary, d model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from mmpt.attention import absorb
from mmpt.attention.inject import running_attention
from mmpt.attention.packing import Packing, packed
from mmpt.data.collate import IGNORED
from mmpt.data.encode import TextToText
from mmpt.methods.base import Contribution
from mmpt.models.adapted import Encoded
from mmpt.models.devices import dispatched
from mmpt.models.kinds.text import TextModel
from mmpt.models.partial_forward import below, resumed
from mmpt.models.parts import embed


class EncoderDecoder(TextModel):
    """A frozen encoder-decoder with a method; :class:`Encoded` has the encoder's output."""

    READING = TextToText

    def prepare(self, cross_attention: str) -> None:
        """Let cross attention absorb the projections of the source."""
        absorb.install(self.injection.modules["cross"], cross_attention, self.injection.architecture)

    def encode(self, input_ids: Tensor, attention_mask: Tensor, adapter_names: Sequence[str] | None = None) -> Encoded:
        """See the base class."""
        with self.hooks.using(self.method, adapter_names):
            output = self.backbone.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
            states, source = output.last_hidden_state, self.hooks.source
        return Encoded(states, source.widened(attention_mask, states.shape[1]), source.contribution)

    def states(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        encoded = self.encode(batch["input_ids"], batch["attention_mask"])
        insertion = self.hooks.source.insertion
        return encoded.states if insertion is None else insertion.without(encoded.states)

    def constants(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        inputs = {"inputs_embeds": embed(self.backbone, batch["input_ids"]), "attention_mask": batch["attention_mask"]}
        with self.hooks.given(Contribution()):
            if self._all_constant:  # its output, behind the last layer
                return self.backbone.get_encoder()(**inputs).last_hidden_state
            return below(self.backbone, "encoder", self.first_trained, inputs)

    @property
    def _all_constant(self) -> bool:
        return self.first_trained == self.method.shape.first_stack.layers

    def resume(self, batch: Mapping[str, Tensor]) -> Encoded:
        """See the base class."""
        states, mask = batch["states"], batch["attention_mask"]
        contribution = self.contribute(batch)
        if not self._all_constant:
            inputs = {"inputs_embeds": states, "attention_mask": mask}
            with self.hooks.given(contribution), resumed(self.backbone, "encoder", states, self.first_trained):
                states = self.backbone.get_encoder()(**inputs).last_hidden_state
        return Encoded(states, mask, contribution)

    def decode(self, encoded: Encoded, labels: Tensor, places: Tensor | None = None) -> Tensor:
        """See the base class; where it can, the decoder computes nothing for padding."""
        times = labels.shape[0] // encoded.states.shape[0]
        states, mask = encoded.states, encoded.mask
        if times > 1:
            states, mask = states.repeat_interleave(times, dim=0), mask.repeat_interleave(times, dim=0)
        model: Any = self.backbone
        ids = model.prepare_decoder_input_ids_from_labels(labels)
        without_padding: AbstractContextManager[None] = nullcontext()
        if places is not None and self._packs(labels):
            packing = Packing(places, labels.shape)
            ids, without_padding = packing.pack(ids), packed(self._decoder_attention, packing)
        with self.hooks.given(encoded.contribution), without_padding:
            output = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=mask,
                decoder_input_ids=ids,
                use_cache=False,
            )
        return output.logits

    @property
    def _decoder_attention(self) -> list[nn.Module]:
        return [*self.injection.modules["decoder"], *self.injection.modules["cross"]]

    def _packs(self, labels: Tensor) -> bool:
        """Whether the decoder can do without padding: attention knows tokens by their distance, and sources by rows.

        Not where the network lies on several devices, and while torch compiles.
        """
        if torch.compiler.is_compiling():  # first: what follows reads values of labels
            return False
        known = self.injection.architecture.relative_bias and absorb.absorbs(self.injection.modules["cross"])
        if not known or running_attention(self.backbone) != "mmpt_sdpa" or dispatched(self.backbone):
            return False
        real = labels != IGNORED
        inside = (~real[:, :-1] & real[:, 1:]).any()
        return len(labels) > 1 and bool(real[:, -1].any()) and not bool(inside)

    @torch.no_grad()
    def generate(self, encoded: Encoded, **options: Any) -> Tensor:
        """Generate as the backbone does, (B, U) with the start token; ``options`` go to its own ``generate``.

        ``cache_implementation="static"`` keeps the decoder's keys and values in tensors of a fixed size, which
        compiled decoders need; it takes ``max_new_tokens``.

        Raises:
            ValueError: A static cache is asked of layout ``paper``, whose positions count the tokens there are, or
                without ``max_new_tokens``; or another cache is.
        """
        model: Any = self.backbone
        with self.hooks.given(encoded.contribution):
            states = BaseModelOutput(last_hidden_state=encoded.states)
            ids: Tensor = model.generate(encoder_outputs=states, attention_mask=encoded.mask, **options)
        return ids
