"""A frozen backbone with a method: what all kinds of models have in common. Each has a file in ``mmpt.models.kinds``.

Letters: B batch, T source tokens, P prompt tokens, U target tokens, C candidates, d model width, R routes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from mmpt.attention.inject import Injection
from mmpt.data.collate import IGNORED
from mmpt.data.encode import TextToText
from mmpt.methods import create
from mmpt.methods.base import BackboneShape, CacheableLayers, Contribution, Method, mean_embedding
from mmpt.methods.options import MethodOptions
from mmpt.models.activation_probe import VocabularyRecorder
from mmpt.models.adapter_files import start_from
from mmpt.models.backbone import Backbone, embed, word_embeddings
from mmpt.models.label_states import Continued

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Encoded:
    """A batch up to where its targets come in, which all of its candidates share.

    Attributes:
        states: (B, P+T, d), what the kind of model goes on from; of a classification head, its scores (B, C).
        mask: (B, P+T), 1 where a token is.
        contribution: What the method adds.
        continued: Cached states of source and continuations, which a decoder-only model goes on from.
    """

    states: Tensor
    mask: Tensor
    contribution: Contribution
    continued: Continued | None = None


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


class AdaptedModel(nn.Module, ABC):
    """A backbone whose only trainable parameters are a method's."""

    READING: ClassVar[type[TextToText]]  # what this kind of model makes of a task
    PROMPT_AT: ClassVar[int] = 0  # source tokens before a method's prompt

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

    @staticmethod
    def build(
        backbone: Backbone,
        options: MethodOptions,
        *,
        dropout: bool = False,
        initialise: bool = True,
        most: int | None = None,
    ) -> AdaptedModel:
        """Create the method and join it to the backbone.

        Args:
            backbone: A loaded backbone.
            options: The method's.
            dropout: See :meth:`__init__`.
            initialise: Whether starting values may be taken from the backbone (not needed before loading an adapter).
            most: Numbers that the method may have: those of the adapter.

        Returns:
            The model, of the class for the backbone's kind.

        Raises:
            ConfigError: The method or its options are wrong.
            AdapterError: The adapter to start from can't be used.
        """
        from mmpt.models.kinds import class_of  # the kinds are subclasses

        kind = class_of(backbone.kind)
        injection = Injection(backbone.model)
        kind.prepare(backbone, injection)
        width = word_embeddings(backbone.model).embedding_dim
        config = backbone.model.config
        shape = BackboneShape(width, injection.shapes, config.model_type, config.hidden_size)
        method = create(options, shape, most)
        method.attach_head(kind.head(backbone))
        method.attach(backbone.model)
        method.requires_grad_(True)  # peft freezes all that isn't its own, a head too
        model = kind(backbone.model, method, injection, dropout=dropout)
        if initialise:
            method.initialise(VocabularyRecorder(model, backbone.tokenizer))
            if getattr(method.options, "init", None) == "adapter":
                start_from(method, method.options.init_adapter, backbone.fingerprint)
        return model

    @classmethod
    def prepare(cls, backbone: Backbone, injection: Injection) -> None:
        """Change the backbone as this kind needs it, before the method is attached. The default changes nothing."""

    @classmethod
    def head(cls, backbone: Backbone) -> dict[str, nn.Parameter]:
        """Parameters of the backbone, by name, that are trained whatever the method is. By default there are none."""
        return {}

    def train(self, mode: bool = True) -> AdaptedModel:
        """Switch the method to training; the backbone only where it is to drop out."""
        drops = mode and self.dropout
        if (self.training, self.method.training, self.backbone.training) != (mode, mode, drops):  # a walk each step
            super().train(mode)
            self.backbone.train(drops)
        return self

    @property
    def width(self) -> int:
        """Model width d, that of hidden states; some networks have smaller word embeddings."""
        return int(self.backbone.config.hidden_size)

    @property
    def cacheable_layers(self) -> CacheableLayers:
        """Up to which layer hidden states are constants."""
        return CacheableLayers(None, "model.dropout=backbone") if self.dropout else self.method.cacheable_layers

    @property
    def first_trained(self) -> int:
        """The first layer that anything trained reaches, where states below it are constants."""
        layers = self.method.cacheable_layers.count
        assert layers is not None, self.method.cacheable_layers.reason
        return layers

    @property
    def prevents_cache(self) -> str | None:
        """The setting because of which no hidden state is a constant; None where some are."""
        return self.cacheable_layers.reason

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Contribution]:
        """What the first layer reads of source ids (B, T) and their mask (B, T): embeddings, their mask, and the rest.

        The contribution's prefixes stay set for the passes that follow.

        Returns:
            Word embeddings (B, P+T, d) with the method's prompt and update, the mask (B, P+T), the contribution.
        """
        embeddings = embed(self.backbone, input_ids)
        contribution = self.contribute(mean_embedding(embeddings, attention_mask) if self.method.reads_input else None)
        embeddings, attention_mask = with_prompt(contribution, embeddings, attention_mask, self.PROMPT_AT)
        return embeddings, attention_mask, contribution

    def contribute(self, means: Tensor | None) -> Contribution:
        """The method's contribution for mean word embeddings (B, d); its prefixes are set."""
        contribution: Contribution = self.method(means if self.method.reads_input else None)
        self.injection.set(contribution.prefixes)
        return contribution

    def start(self, batch: Mapping[str, Tensor]) -> Encoded:
        """A batch up to its targets: from cached activations where it has them, else from its ids."""
        if "states" in batch:
            return self.resume(batch)
        return self.encode(batch["input_ids"], batch["attention_mask"])

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """Run method and network on source ids (B, T) and their mask (B, T)."""
        return self.encode_embeddings(*self.embed(input_ids, attention_mask))

    @abstractmethod
    def encode_embeddings(self, embeddings: Tensor, mask: Tensor, contribution: Contribution) -> Encoded:
        """Run the network on what :meth:`embed` gives."""

    @abstractmethod
    def constants(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Hidden states (B, N, d) entering the first trained layer; no prefix may be set.

        N is T, or more where a kind has states of what follows a source.
        """

    @abstractmethod
    def resume(self, batch: Mapping[str, Tensor]) -> Encoded:
        """Go on from a batch's cached activations (:mod:`mmpt.cache`), ``states`` (B, N, d) and ``means`` (B, d)."""

    @abstractmethod
    def losses(self, encoded: Encoded, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of each row of labels (B', U), summed, in nats: (B',), float32.

        B' is a multiple of B, an example's rows together; -100 is padding. ``smoothing`` is the share of a label's
        probability that is spread over all tokens, or over all classes.
        """

    @abstractmethod
    def likelihoods(self, encoded: Encoded, candidates: Sequence[Sequence[int]]) -> Tensor:
        """Log-likelihood (B, C), float32, of each of C candidates' label ids for every source, with gradients."""

    @torch.no_grad()
    def rank(self, encoded: Encoded, candidates: Sequence[Sequence[int]]) -> Tensor:
        """See :meth:`likelihoods`; without gradients."""
        return self.likelihoods(encoded, candidates)

    @abstractmethod
    def generate(self, encoded: Encoded, **options: Any) -> Tensor:
        """Generated ids (B, U); ``options`` go to the backbone's own ``generate``."""

    @abstractmethod
    def read(self, ids: Tensor) -> None:
        """Run the frozen network on ids (1, P) so that the attention of every site reads them."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **more: Tensor) -> Output:
        """Teacher-forced pass.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T).
            labels: (B, U), -100 for padding.
            more: What else the batch has: cached ``states`` (B, N, d) and ``means`` (B, d), say.
        """
        encoded = self.start({"input_ids": input_ids, "attention_mask": attention_mask, **more})
        losses, given = self.losses(encoded, labels), encoded.contribution
        return Output(losses, (labels != IGNORED).sum(), given.route_probs, given.auxiliary_loss)


def with_prompt(contribution: Contribution, embeddings: Tensor, mask: Tensor, at: int = 0) -> tuple[Tensor, Tensor]:
    """Word embeddings (B, T, d) and mask (B, T) with a method's update and prompt: (B, P+T, d) and (B, P+T).

    The prompt follows the first ``at`` tokens.
    """
    if contribution.embedding_update is not None:
        embeddings = _updated(embeddings, contribution.embedding_update)
    if contribution.prompt is not None:
        prompt = contribution.prompt.to(embeddings.dtype).expand(embeddings.shape[0], -1, -1)
        embeddings = torch.cat([embeddings[:, :at], prompt, embeddings[:, at:]], dim=1)
        mask = F.pad(mask, (prompt.shape[1], 0), value=1)
    return embeddings, mask


def _updated(embeddings: Tensor, update: Tensor) -> Tensor:
    """Embeddings (B, T, d) plus an update (M, d) or (B, M, d) of the first M tokens, T above or below M."""
    tokens = embeddings.shape[1]
    update = update[..., :tokens, :].to(embeddings.dtype)
    return embeddings + F.pad(update, (0, 0, 0, tokens - update.shape[-2]))
