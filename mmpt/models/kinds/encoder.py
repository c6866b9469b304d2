"""Encoders with a classification head: a source goes through the network once, and the head scores the classes.

The head is all that lies behind the last layer (the pooler too), as the architecture has it. It is always trained, as
the method's group ``head``, in float32. Weights of it that the checkpoint lacks are drawn anew for every run.

Letters: B batch, T source tokens, P prompt tokens, C classes, d model width, N sources: B, or B·C where the head scores
a text for each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.data.collate import one_source_a_row
from mmpt.data.encode import Classes
from mmpt.errors import ConfigError
from mmpt.models.adapted import AdaptedModel, Encoded
from mmpt.models.partial_forward import below, only_last, resumed
from mmpt.models.parts import embed, refuse_positions, word_embeddings


class EncoderClassifier(AdaptedModel):
    """A frozen encoder with a method and a trained head; :class:`Encoded` has the classes' scores (B, C)."""

    READING = Classes

    def start(self, batch: Mapping[str, Tensor]) -> Encoded:
        """See the base class; ids (B, C, T) are those of a source for each class."""
        sources = one_source_a_row(batch)
        if "states" in sources:
            encoded = self.resume(sources)
        else:
            ids, mask = sources["input_ids"], sources["attention_mask"]
            encoded = self.encode(ids, mask, None, sources.get("token_type_ids"))
        if batch["input_ids"].dim() == 2:
            return encoded
        examples = len(batch["input_ids"])
        contribution, probs = encoded.contribution, encoded.contribution.route_probs
        if probs is not None:  # of an example: the mean over its sources
            contribution = replace(contribution, route_probs=probs.unflatten(0, (examples, -1)).mean(dim=1))
        return Encoded(encoded.states.view(examples, -1), encoded.mask, contribution)

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        adapter_names: Sequence[str] | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Encoded:
        """See the base class; of N sources, the head's scores (N, C or 1)."""
        with self.hooks.using(self.method, adapter_names), self._what_head_reads(input_ids):
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **self._types(token_type_ids)}
            scores, source = self.backbone(**inputs).logits.float(), self.hooks.source
        return Encoded(scores, attention_mask, source.contribution)

    def _what_head_reads(self, rows: Tensor) -> AbstractContextManager[None]:
        """Let the last layer compute no more than that, of N rows."""
        if not self.injection.architecture.head_reads_first(self.backbone.config):
            return nullcontext()
        return only_last(self.backbone, "self", rows.new_zeros((len(rows), 1), dtype=torch.long))

    def states(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        inputs |= self._types(batch.get("token_type_ids"))
        with self.hooks.using(self.method):
            states = self.backbone(**inputs, output_hidden_states=True).hidden_states[-1]
            insertion = self.hooks.source.insertion
        return states if insertion is None else insertion.without(states)

    def _types(self, types: Tensor | None) -> dict[str, Tensor]:
        """Which text of a pair each token is of (N, T), for networks that read it."""
        if types is None or getattr(self.backbone.config, "type_vocab_size", 0) < 2:
            return {}
        return {"token_type_ids": types}

    def constants(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        embeddings, mask = embed(self.backbone, batch["input_ids"]), batch["attention_mask"]
        refuse_positions(self.backbone, embeddings.shape[1])
        inputs = {"inputs_embeds": embeddings, "attention_mask": mask, **self._types(batch.get("token_type_ids"))}
        return below(self.backbone, "self", self.first_trained, inputs)

    def resume(self, batch: Mapping[str, Tensor]) -> Encoded:
        """See the base class; of N sources, the head's scores (N, C or 1)."""
        states, mask, contribution = batch["states"], batch["attention_mask"], self.contribute(batch)
        nothing = states.new_zeros(*states.shape[:2], word_embeddings(self.backbone).embedding_dim)
        begin = resumed(self.backbone, "self", states, self.first_trained)
        with self.hooks.given(contribution), begin, self._what_head_reads(mask):
            scores = self.backbone(inputs_embeds=nothing, attention_mask=mask).logits.float()
        return Encoded(scores, mask, contribution)

    def losses(self, encoded: Encoded, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """See the base class; labels (B, 1) are classes."""
        return F.cross_entropy(encoded.states, labels[:, 0], reduction="none", label_smoothing=smoothing)

    def likelihoods(self, encoded: Encoded, candidates: Sequence[Sequence[int]]) -> Tensor:
        """See the base class: the classes' log-probabilities."""
        classes = [label for (label,) in candidates]
        return torch.log_softmax(encoded.states, dim=-1)[:, classes]

    def generate(self, encoded: Encoded, **options: Any) -> NoReturn:
        """Refuse, by a ConfigError."""
        raise ConfigError(
            f"{self.backbone.config.model_type} models with a classification head write no text; set "
            "evaluation.decoding=[ranking]"
        )
