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
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel, StaticCache
from transformers.modeling_outputs import BaseModelOutput

from mmpt.data.collate import IGNORED
from mmpt.errors import ConfigError
from mmpt.methods import build
from mmpt.methods.base import BackboneShape, Contribution, Frontier, Method, mean_embedding
from mmpt.models import absorb
from mmpt.models.adapter import start_from
from mmpt.models.backbone import Backbone, word_embeddings
from mmpt.models.encoder import prompted, upper
from mmpt.models.inject import Injection
from mmpt.models.loss import only_labelled, row_losses


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
        losses: (B,), cross-entropy of each example's label tokens, summed, in nats.
        tokens: How many label tokens there are in the batch, ().
        route_probs: (B, R), or None.
        auxiliary: What the method adds to the loss, (), or None.
    """

    losses: Tensor
    tokens: Tensor
    route_probs: Tensor | None
    auxiliary: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        """Mean over the batch's label tokens, and what the method adds, ()."""
        loss = self.losses.sum() / self.tokens
        return loss if self.auxiliary is None else loss + self.auxiliary


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
            AdapterError: The adapter to start from can't be used.
        """
        injection = Injection(backbone.model)
        absorb.install(injection.modules["cross"], backbone.cross_attention)
        width = word_embeddings(backbone.model).embedding_dim
        method = build(name, options, BackboneShape(width, injection.shapes))
        method.attach(backbone.model)
        model = cls(backbone.model, method, injection, dropout=dropout)
        if initialise:
            method.initialise(VocabularyRecorder(backbone, injection))
            if getattr(method.options, "init", None) == "adapter":
                start_from(method, method.options.init_adapter, backbone.fingerprint)
        return model

    def train(self, mode: bool = True) -> AdaptedModel:
        """Switch the method to training; the backbone only where it is to drop out."""
        drops = mode and self.dropout
        if (self.training, self.method.training, self.backbone.training) != (mode, mode, drops):  # a walk each step
            super().train(mode)
            self.backbone.train(drops)
        return self

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """Run method and encoder on source ids (B, T) and their mask (B, T).

        The contribution's prefixes stay set for the decoder passes that follow.
        """
        embeddings = word_embeddings(self.backbone)(input_ids)
        if self.method.reads_encoder:
            self.injection.set({})
            return self._behind(self._encoder_output(embeddings, attention_mask), attention_mask)
        contribution = self.method(mean_embedding(embeddings, attention_mask) if self.method.reads_input else None)
        self.injection.set(contribution.prefixes)
        if contribution.embedding_update is not None:
            embeddings = _updated(embeddings, contribution.embedding_update)
        if contribution.prompt is not None:
            prompt = contribution.prompt.to(embeddings.dtype).expand(input_ids.shape[0], -1, -1)
            embeddings = torch.cat([prompt, embeddings], dim=1)
            attention_mask = F.pad(attention_mask, (prompt.shape[1], 0), value=1)
        if (prompts := contribution.layer_prompts) is not None:
            text, room = attention_mask, (0, 0, prompts.tokens, 0)  # which the first layer's prompt takes
            embeddings, attention_mask = F.pad(embeddings, room), F.pad(attention_mask, (prompts.tokens, 0), value=1)
            with prompted(self.backbone, prompts, text):
                states = self._encoder_output(embeddings, attention_mask)
            return Encoded(states, attention_mask, prompts.finish(contribution))
        return Encoded(self._encoder_output(embeddings, attention_mask), attention_mask, contribution)

    def _encoder_output(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.backbone.get_encoder()(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return states

    def _behind(self, states: Tensor, mask: Tensor) -> Encoded:
        """A batch of the encoder's output (B, T, d), which the method reads."""
        contribution = self.method(mean_embedding(states, mask))
        self.injection.set(contribution.prefixes)
        return Encoded(states, mask, contribution)

    def resume(self, states: Tensor, attention_mask: Tensor, means: Tensor) -> Encoded:
        """Go on from cached activations (:mod:`mmpt.cache`): states (B, T, d), mask (B, T), means (B, d)."""
        if self.method.reads_encoder:  # all of the encoder is constant then
            return self._behind(states, attention_mask)
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

    def losses(self, encoded: Encoded, labels: Tensor) -> Tensor:
        """Cross-entropy of the label tokens of each row of labels (B', U), summed, in nats: (B',), float32."""
        with only_labelled(self.backbone, labels) as places:
            return row_losses(self.decode(encoded, labels), labels, places)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **cached: Tensor) -> Output:
        """Teacher-forced pass.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T).
            labels: (B, U), -100 for padding.
            cached: ``states`` (B, T, d) and ``means`` (B, d), or nothing.
        """
        encoded = self.start({"input_ids": input_ids, "attention_mask": attention_mask, **cached})
        losses, given = self.losses(encoded, labels), encoded.contribution
        return Output(losses, (labels != IGNORED).sum(), given.route_probs, given.auxiliary_loss)

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
        return -self.losses(encoded, labels).view(batch, len(candidates))

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
            options["past_key_values"] = self._key_cache(encoded, wish == "static", options.get("max_new_tokens"))
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
        return EncoderDecoderCache(StaticCache(model.decoder.config, max_cache_len=1 + longest), DynamicCache())


def _updated(embeddings: Tensor, update: Tensor) -> Tensor:
    """Embeddings (B, T, d) plus an update (M, d) or (B, M, d) of the first M tokens, T above or below M."""
    tokens = embeddings.shape[1]
    update = update[..., :tokens, :].to(embeddings.dtype)
    return embeddings + F.pad(update, (0, 0, 0, tokens - update.shape[-2]))


class VocabularyRecorder:
    """Runs a backbone on sampled vocabulary or a text, and records its keys and values."""

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

    def text(self, text: str, count: int) -> Tensor:
        """The first ids (P,) of a text without special tokens, repeated where it has fewer.

        Raises:
            ConfigError: No ordinary piece is in it.
        """
        tokenizer = self.backbone.tokenizer
        special = set(tokenizer.all_special_ids)
        ids = [index for index in tokenizer(text, add_special_tokens=False)["input_ids"] if index not in special]
        if not ids:
            raise ConfigError(f"method.init_text={text!r} has no piece that the backbone's vocabulary knows; change it")
        return torch.tensor(ids).repeat(count // len(ids) + 1)[:count]

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
