"""Encoders with a classification head: a source goes through the network once, and the head scores the classes.

The head is all that lies behind the last layer (the pooler too), as the architecture has it. It is always trained, as
the method's group ``head``, in float32. Weights of it that the checkpoint lacks are drawn anew for every run.

Letters: B batch, T source tokens, P prompt tokens, C classes, d model width, N sources: B, or B·C where the head scores
a text for each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.attention.inject import Injection
from mmpt.data.collate import SOURCES
from mmpt.data.encode import Classes
from mmpt.errors import ConfigError
from mmpt.methods.base import Contribution
from mmpt.models.adapted import AdaptedModel, Encoded
from mmpt.models.backbone import Backbone, embed, head_parameters, refuse_positions, word_embeddings
from mmpt.models.partial_forward import below, only


class EncoderClassifier(AdaptedModel):
    """A frozen encoder with a method and a trained head; :class:`Encoded` has the classes' scores (B, C)."""

    READING = Classes
    PROMPT_AT = 1  # after the first token: heads read the state of that one

    @classmethod
    def prepare(cls, backbone: Backbone, injection: Injection) -> None:
        """Draw the weights of the head that the checkpoint lacks, and let the head run in float32."""
        model: Any = backbone.model
        _draw(model, backbone.fresh)
        pooler = getattr(model.base_model, "pooler", None)
        parts = [part for name, part in model.named_children() if name != model.base_model_prefix]
        for part in [*parts, *([] if pooler is None else [pooler])]:
            if next(part.parameters(), None) is not None:
                part.float().register_forward_pre_hook(_as_float32)

    @classmethod
    def head(cls, backbone: Backbone) -> dict[str, nn.Parameter]:
        """See the base class."""
        return {name: backbone.model.get_parameter(name) for name in head_parameters(backbone.model)}

    def start(self, batch: Mapping[str, Tensor]) -> Encoded:
        """See the base class; ids (B, C, T) are those of a source for each class."""
        if batch["input_ids"].dim() == 2:
            return self._scored(batch)
        examples = len(batch["input_ids"])
        encoded = self._scored({name: rows.flatten(0, 1) if name in SOURCES else rows for name, rows in batch.items()})
        contribution, probs = encoded.contribution, encoded.contribution.route_probs
        if probs is not None:  # of an example: the mean over its sources
            contribution = replace(contribution, route_probs=probs.unflatten(0, (examples, -1)).mean(dim=1))
        return Encoded(encoded.states.view(examples, -1), encoded.mask, contribution)

    def _scored(self, batch: Mapping[str, Tensor]) -> Encoded:
        mask = batch["attention_mask"]
        if "states" in batch:
            return self.resume(batch)
        return self.encode(batch["input_ids"], mask, batch.get("token_type_ids"))

    def encode(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Encoded:
        """See the base class; of N sources, the head's scores (N, C or 1)."""
        return self.encode_embeddings(*self.embed(input_ids, attention_mask), token_type_ids)

    def encode_embeddings(
        self, embeddings: Tensor, mask: Tensor, contribution: Contribution, types: Tensor | None = None
    ) -> Encoded:
        """See the base class; types (N, T) tell the texts of a pair apart."""
        return Encoded(self.backbone(**self._inputs(embeddings, mask, types)).logits.float(), mask, contribution)

    def _inputs(self, embeddings: Tensor, mask: Tensor, types: Tensor | None) -> dict[str, Tensor]:
        """What the network reads: embeddings (N, P+T, d), mask (N, P+T), types (N, T) where it has any.

        Raises:
            ConfigError: There are more tokens than positions.
        """
        tokens = embeddings.shape[1]
        refuse_positions(self.backbone, tokens)
        inputs = {"inputs_embeds": embeddings, "attention_mask": mask}
        if types is not None and getattr(self.backbone.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = F.pad(types, (tokens - types.shape[1], 0))  # a prompt is of the first text
        return inputs

    def constants(self, batch: Mapping[str, Tensor]) -> Tensor:
        """See the base class."""
        inputs = self._inputs(
            embed(self.backbone, batch["input_ids"]), batch["attention_mask"], batch.get("token_type_ids")
        )
        return below(self.backbone, "self", self.first_trained, inputs)

    def resume(self, batch: Mapping[str, Tensor]) -> Encoded:
        """See the base class; of N sources, the head's scores (N, C or 1)."""
        states, attention_mask, contribution = batch["states"], batch["attention_mask"], self.contribute(batch["means"])

        def give(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (states, *args[1:])

        nothing = states.new_zeros(*states.shape[:2], word_embeddings(self.backbone).embedding_dim)
        with only(self.backbone, "self", slice(self.first_trained, None)) as layers:
            hook = layers[0].register_forward_pre_hook(give)
            try:
                scores = self.backbone(**self._inputs(nothing, attention_mask, None)).logits.float()
            finally:
                hook.remove()
        return Encoded(scores, attention_mask, contribution)

    def losses(self, encoded: Encoded, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """See the base class; labels (B, 1) are classes."""
        return F.cross_entropy(encoded.states, labels[:, 0], reduction="none", label_smoothing=smoothing)

    def likelihoods(self, encoded: Encoded, candidates: Sequence[Sequence[int]]) -> Tensor:
        """See the base class: the classes' log-probabilities."""
        classes = [label for (label,) in candidates]
        return torch.log_softmax(encoded.states, dim=-1)[:, classes]

    def generate(self, encoded: Encoded, **options: Any) -> NoReturn:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{self.backbone.config.model_type} models with a classification head write no text; set "
            "evaluation.decoding=[ranking]"
        )

    def read(self, ids: Tensor) -> None:
        """See the base class."""
        self.backbone.base_model(input_ids=ids)


def _as_float32(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if isinstance(value, Tensor) else value for value in args)


def _draw(model: Any, names: Sequence[str]) -> None:
    """Draw parameters as the model itself does, from torch's global generator; the others stay as they are."""
    if not names:
        return
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        value._is_hf_initialized = name not in names  # what transformers' own functions go by
    with torch.no_grad():
        model.apply(model._init_weights)
