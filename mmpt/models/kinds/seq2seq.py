"""Encoder-decoders: the source goes through the encoder once, and the decoder reads it for every target.

Letters: B batch, T source tokens, P prompt tokens, U target tokens, C candidate labels, V vocabulary, d model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.modeling_outputs import BaseModelOutput

from mmpt.attention import absorb
from mmpt.attention.inject import CACHE, Injection
from mmpt.data.encode import TextToText
from mmpt.methods.base import Contribution, mean_embedding
from mmpt.models.adapted import Encoded
from mmpt.models.backbone import Backbone, embed, refuse_positions
from mmpt.models.kinds.text import TextModel
from mmpt.models.partial_forward import lower, prompted, upper


class EncoderDecoder(TextModel):
    """A frozen encoder-decoder with a method; :class:`Encoded` has the encoder's output."""

    READING = TextToText

    @classmethod
    def prepare(cls, backbone: Backbone, injection: Injection) -> None:
        """Let cross attention absorb the projections of the source."""
        absorb.install(injection.modules["cross"], backbone.cross_attention, backbone.architecture)

    def encode_embeddings(self, embeddings: Tensor, mask: Tensor, contribution: Contribution) -> Encoded:
        """See the base class."""
        prompts = contribution.layer_prompts
        refuse_positions(self.backbone, embeddings.shape[1] + (0 if prompts is None else prompts.tokens))
        if prompts is None:
            return Encoded(self._encoder_output(embeddings, mask), mask, contribution)
        text, room = mask, (0, 0, prompts.tokens, 0)  # which the first layer's prompt takes
        embeddings, mask = F.pad(embeddings, room), F.pad(mask, (prompts.tokens, 0), value=1)
        with prompted(self.backbone, prompts, text):
            states = self._encoder_output(embeddings, mask)
        return Encoded(states, mask, prompts.finish(contribution))

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """See the base class."""
        if not self.method.reads_encoder:
            return super().encode(input_ids, attention_mask)
        self.injection.set({})
        return self._behind(self._encoder_output(embed(self.backbone, input_ids), attention_mask), attention_mask)

    def _encoder_output(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.backbone.get_encoder()(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return states

    def _behind(self, states: Tensor, mask: Tensor) -> Encoded:
        """A batch of the encoder's output (B, T, d), which the method reads."""
        contribution: Contribution = self.method(mean_embedding(states, mask))
        self.injection.set(contribution.prefixes)
        return Encoded(states, mask, contribution)

    def constants(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        embeddings = embed(self.backbone, batch["input_ids"])
        return lower(self.backbone, embeddings, batch["attention_mask"], self.first_trained)

    def resume(self, batch: Mapping[str, Tensor]) -> Encoded:
        """See the base class."""
        states, attention_mask = batch["states"], batch["attention_mask"]
        if self.method.reads_encoder:  # all of the encoder is constant then
            return self._behind(states, attention_mask)
        contribution = self.contribute(batch["means"])
        return Encoded(upper(self.backbone, states, attention_mask, self.first_trained), attention_mask, contribution)

    def decode(self, encoded: Encoded, labels: Tensor) -> Tensor:
        """See the base class."""
        times = labels.shape[0] // encoded.states.shape[0]
        states, mask = encoded.states, encoded.mask
        if times > 1:
            states, mask = states.repeat_interleave(times, dim=0), mask.repeat_interleave(times, dim=0)
        self.injection.set(encoded.contribution.prefixes)
        model: Any = self.backbone
        output = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
        )
        return output.logits

    @torch.no_grad()
    def generate(self, encoded: Encoded, **options: Any) -> Tensor:
        """Generate as the backbone does, (B, U) with the start token; ``options`` go to its own ``generate``.

        ``cache_implementation="static"`` keeps the decoder's keys and values in tensors of a fixed size, which
        compiled decoders need; it takes ``max_new_tokens``.

        Raises:
            ValueError: A static cache is asked of layout ``paper``, whose positions count the tokens there are, or
                without ``max_new_tokens``; or another cache is.
        """
        wish = options.pop("cache_implementation", None)
        if wish not in (None, "dynamic", "static"):
            raise ValueError(f"cache_implementation={wish} isn't supported with prefixes; choose dynamic or static")
        if options.get("use_cache", True):
            options[CACHE] = self._key_cache(encoded, wish == "static", options.get("max_new_tokens"))
        self.injection.set(encoded.contribution.prefixes)
        states = BaseModelOutput(last_hidden_state=encoded.states)
        model: Any = self.backbone
        ids: Tensor = model.generate(encoder_outputs=states, attention_mask=encoded.mask, **options)
        return ids

    def _key_cache(self, encoded: Encoded, static: bool, longest: int | None) -> EncoderDecoderCache:
        """A cache for keys and values; generate's own has as many layers as the encoder, whatever the decoder has."""
        if not static:
            return EncoderDecoderCache(DynamicCache(), DynamicCache())
        if any(prefix.positioned for prefix in encoded.contribution.prefixes.values()):
            raise ValueError("method.layout=paper needs the dynamic cache: its positions count the tokens there are")
        if longest is None:
            raise ValueError("a static cache needs max_new_tokens, its size")
        model: Any = self.backbone
        return EncoderDecoderCache(StaticCache(model.get_decoder().config, max_cache_len=1 + longest), DynamicCache())

    def read(self, ids: Tensor) -> None:
        """See the base class: ids are source and target at once."""
        self.backbone(input_ids=ids, decoder_input_ids=ids, use_cache=False)
