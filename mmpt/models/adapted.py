"""A frozen backbone with a method: forward, label ranking and generation.

Letters: B batch, T source tokens, P prompt tokens, U target tokens, C candidate labels, V vocabulary, d model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from mmpt.data.collate import IGNORED
from mmpt.methods import build
from mmpt.methods.base import BackboneShape, Contribution, Frontier, Method, mean_embedding
from mmpt.models import absorb
from mmpt.models.backbone import Backbone, word_embeddings
from mmpt.models.encoder import upper
from mmpt.models.inject import Injection
from mmpt.models.loss import only_labelled, token_losses


@dataclass(frozen=True)
class Encoded:
    """A batch behind the encoder: states (B, P+T, d), mask (B, P+T), and what the method contributes."""

    states: Tensor
    mask: Tensor
    contribution: Contribution


@dataclass(frozen=True)
class Output:
    """What one teacher-forced pass gives.

    Attributes:
        losses: (n,), cross-entropy of every label token in nats; on a GPU with zeros for the padding between them.
        tokens: How many label tokens there are, ().
        route_probs: (B, R), or None.
    """

    losses: Tensor
    tokens: Tensor
    route_probs: Tensor | None

    @property
    def loss(self) -> Tensor:
        """Mean over the batch's label tokens, ()."""
        return self.losses.sum() / self.tokens


class AdaptedModel(nn.Module):
    """A backbone whose only trainable parameters are a method's."""

    def __init__(self, backbone: PreTrainedModel, method: Method, injection: Injection, *, dropout: bool) -> None:
        """Join the two; :meth:`build` is the usual way.

        Args:
            backbone: The frozen model.
            method: Built for the backbone's shape, and attached to it.
            injection: The backbone's attention by site.
            dropout: Whether the frozen network drops out while training, as the published code does.
        """
        super().__init__()
        self.backbone, self.method = backbone, method
        self.injection = injection
        self.dropout = dropout
        self.backbone.eval()

    @classmethod
    def build(
        cls,
        backbone: Backbone,
        name: str,
        options: Mapping[str, Any],
        *,
        dropout: bool = False,
        initialise: bool = True,
    ) -> AdaptedModel:
        """Create the method and join it to the backbone.

        Args:
            backbone: A loaded backbone.
            name: The method's name.
            options: The method's options.
            dropout: See :meth:`__init__`.
            initialise: Whether starting values may be taken from the backbone (not needed before loading an adapter).

        Raises:
            ConfigError: The method or its options are wrong.
        """
        injection = Injection(backbone.model)
        absorb.install(injection.modules["cross"], backbone.cross_attention)
        width = word_embeddings(backbone.model).embedding_dim
        method = build(name, options, BackboneShape(width, injection.shapes))
        method.attach(backbone.model)
        model = cls(backbone.model, method, injection, dropout=dropout)
        if initialise:
            method.initialise(VocabularyRecorder(backbone, injection))
        return model

    def train(self, mode: bool = True) -> AdaptedModel:
        """Switch the method to training; the backbone only where it is to drop out."""
        super().train(mode)
        self.backbone.train(mode and self.dropout)
        return self

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """Run method and encoder on source ids (B, T) and their mask (B, T).

        The contribution's prefixes stay set for the decoder passes that follow.
        """
        embeddings = word_embeddings(self.backbone)(input_ids)
        contribution = self.method(mean_embedding(embeddings, attention_mask) if self.method.reads_input else None)
        self.injection.set(contribution.prefixes)
        if contribution.prompt is not None:
            prompt = contribution.prompt.to(embeddings.dtype).expand(input_ids.shape[0], -1, -1)
            embeddings = torch.cat([prompt, embeddings], dim=1)
            attention_mask = F.pad(attention_mask, (prompt.shape[1], 0), value=1)
        encoder = self.backbone.get_encoder()
        states = encoder(inputs_embeds=embeddings, attention_mask=attention_mask).last_hidden_state
        return Encoded(states, attention_mask, contribution)

    def resume(self, states: Tensor, attention_mask: Tensor, means: Tensor) -> Encoded:
        """Go on from cached activations (:mod:`mmpt.cache`): states (B, T, d), mask (B, T), means (B, d)."""
        contribution = self.method(means if self.method.reads_input else None)
        layers = self.method.frontier.layers
        assert layers is not None
        self.injection.set(contribution.prefixes)
        return Encoded(upper(self.backbone, states, attention_mask, layers), attention_mask, contribution)

    @property
    def frontier(self) -> Frontier:
        """Up to which layer the encoder's hidden states are constants."""
        return Frontier(None, "model.dropout=backbone") if self.dropout else self.method.frontier

    @property
    def prevents_cache(self) -> str | None:
        """The setting because of which nothing in the encoder is a constant; None where something is."""
        return self.frontier.reason

    def decode(self, encoded: Encoded, labels: Tensor) -> Tensor:
        """Logits of the decoder's head for labels (B', U), -100 for padding.

        B' is a multiple of B, an example's rows together. Gives (B', U, V), or (n, V) within
        :func:`mmpt.models.loss.only_labelled`.
        """
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

    def start(self, batch: Mapping[str, Tensor]) -> Encoded:
        """A batch behind the encoder: from cached activations where it has them, else by running the encoder."""
        if "states" in batch:
            return self.resume(batch["states"], batch["attention_mask"], batch["means"])
        return self.encode(batch["input_ids"], batch["attention_mask"])

    def logits(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Teacher-forced logits (B, U, V), padding included; arguments as of :meth:`forward`."""
        return self.decode(self.start({"input_ids": input_ids, "attention_mask": attention_mask}), labels)

    def losses(self, encoded: Encoded, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy (n,) of the label tokens of labels (B', U), and those tokens (n,), -100 among them on a GPU."""
        with only_labelled(self.backbone, labels) as chosen:
            return token_losses(self.decode(encoded, labels), chosen), chosen

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **cached: Tensor) -> Output:
        """Teacher-forced pass.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T).
            labels: (B, U), -100 for padding.
            cached: ``states`` (B, T, d) and ``means`` (B, d), or nothing.
        """
        encoded = self.start({"input_ids": input_ids, "attention_mask": attention_mask, **cached})
        losses, chosen = self.losses(encoded, labels)
        return Output(losses, (chosen != IGNORED).sum(), encoded.contribution.route_probs)

    @torch.no_grad()
    def rank(self, encoded: Encoded, candidates: Sequence[Sequence[int]]) -> Tensor:
        """Log-likelihood of every candidate's ids (with end of sequence) for every source.

        Args:
            encoded: A batch behind the encoder.
            candidates: C lists of token ids.

        Returns:
            (B, C), float32, the sum over a candidate's tokens.
        """
        batch, longest = encoded.states.shape[0], max(map(len, candidates))
        padded = [[*ids, *[IGNORED] * (longest - len(ids))] for ids in candidates]
        labels = torch.tensor(padded, device=encoded.states.device).repeat(batch, 1)  # (B·C, U)
        losses, chosen = self.losses(encoded, labels)
        sizes = torch.tensor([longest if labels.is_cuda else len(ids) for ids in candidates]).repeat(batch)
        owners = torch.arange(len(labels)).repeat_interleave(sizes).to(losses.device)
        assert len(owners) == len(chosen)
        totals = losses.new_zeros(len(labels)).index_add_(0, owners, losses)
        return -totals.view(batch, len(candidates))

    @torch.no_grad()
    def generate(self, encoded: Encoded, **options: Any) -> Tensor:
        """Generate as the backbone does, (B, U) with the start token; ``options`` go to its own ``generate``.

        Raises:
            ValueError: A static cache was asked for: its empty places can't be told from keys.
        """
        if options.get("cache_implementation") is not None:
            raise ValueError("generation with prefixes needs the default dynamic cache; leave cache_implementation out")
        if options.get("use_cache", True):
            # a cache that grows by itself: generate's own has as many layers as the encoder, whatever the decoder has
            options["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.injection.set(encoded.contribution.prefixes)
        states = BaseModelOutput(last_hidden_state=encoded.states)
        model: Any = self.backbone
        ids: Tensor = model.generate(encoder_outputs=states, attention_mask=encoded.mask, **options)
        return ids


class VocabularyRecorder:
    """Runs a backbone on sampled vocabulary, and records its keys and values (``init=vocab``)."""

    def __init__(self, backbone: Backbone, injection: Injection) -> None:
        """Keep what is to be run."""
        self.backbone, self.injection = backbone, injection

    def sample(self, count: int) -> Tensor:
        """Draw ids (P,) of ordinary pieces, with repetition only where the vocabulary is too small."""
        tokenizer = self.backbone.tokenizer
        special = set(tokenizer.all_special_ids)
        ordinary = torch.tensor([index for index in range(len(tokenizer)) if index not in special])
        order = torch.randperm(len(ordinary)).repeat(count // len(ordinary) + 1)
        return ordinary[order[:count]]

    def embeddings(self, ids: Tensor) -> Tensor:
        """Word embeddings (P, d), float32."""
        table = word_embeddings(self.backbone.model).weight
        return table[ids.to(table.device)].detach().float()

    @torch.no_grad()
    def keys_values(self, ids: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Keys and values of ids (P,) as source and as target, by site, each (L, H, P, k), float32."""
        sites: dict[str, list[Any]] = dict(self.injection.modules)
        read: dict[nn.Module, Tensor] = {}

        def keep(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            source = kwargs.get("key_value_states")
            read[module] = (args[0] if source is None else source)[0]  # (P, d)

        hooks = [m.register_forward_pre_hook(keep, with_kwargs=True) for modules in sites.values() for m in modules]
        ids = ids.to(self.backbone.model.device).unsqueeze(0)
        try:
            with self.injection.active({}):
                self.backbone.model(input_ids=ids, decoder_input_ids=ids, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        result = {}
        for site, modules in sites.items():
            heads = self.injection.shapes[site].heads
            pairs = [
                [p(read[m]).unflatten(-1, (heads, -1)).transpose(0, 1).float() for p in (m.k, m.v)] for m in modules
            ]
            result[site] = (torch.stack([key for key, _ in pairs]), torch.stack([value for _, value in pairs]))
        return result
