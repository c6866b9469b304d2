"""A frozen backbone with a method: what all kinds of models have in common. Each has a file in ``mmpt.models.kinds``.

Letters: B batch, T source tokens, P prompt tokens, U target tokens, C candidates, d model width, R routes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from mmpt.data.collate import IGNORED
from mmpt.data.encode import TextToText
from mmpt.methods.base import CacheableLayers, Contribution, Method, mean_embedding
from mmpt.models.adapters import adapters_of
from mmpt.models.parts import embed
from mmpt.utils.module import Module


@dataclass(frozen=True)
class LabelStates:
    """Cached states of decoder-only models: a row has a source's, then those of each of C continuations, without a gap.

    What a layer below the first trained one makes of a source does not depend on what follows, and what it makes of a
    continuation depends on the two texts alone.
    """

    states: Tensor  # (B, N, d)
    ids: Tensor  # token ids of the continuations (B, C, V), -100 for padding

    def starts(self, read: Tensor) -> Tensor:
        """Where the states of continuations begin, counted from their source's end: (B', 1).

        ``read`` has their ids (B', up to V), -100 for padding; B' is a multiple of B, a source's rows together.
        ValueError: one is not there; on a GPU nothing looks, since it would have to be waited for.
        """
        ids = self.ids.repeat_interleave(len(read) // len(self.ids), dim=0)  # (B', C, V)
        same = (ids == F.pad(read, (0, ids.shape[2] - read.shape[1]), value=IGNORED).unsqueeze(1)).all(dim=2)  # (B', C)
        if same.device.type == "cpu" and not same.any(dim=1).all():
            raise ValueError("a label has no cached states: it is not among the continuations of its source")
        tokens = (ids != IGNORED).sum(dim=2)
        return (tokens.cumsum(dim=1) - tokens).gather(1, same.long().argmax(dim=1, keepdim=True))


@dataclass(frozen=True)
class Encoded:
    """A batch up to where its targets come in, which all of its candidates share."""

    states: Tensor  # (B, P+T, d), what the kind of model resumes from; of a classification head, its scores (B, C)
    mask: Tensor  # (B, P+T), 1 where a token is
    contribution: Contribution  # what the method adds
    label_states: LabelStates | None = None  # of a decoder-only model that resumes from cached states


@dataclass(frozen=True)
class Output:
    """What one teacher-forced pass gives."""

    losses: Tensor  # (B,), cross-entropy of each example's label tokens, summed, in nats
    tokens: Tensor  # how many label tokens there are in the batch, ()
    route_probs: Tensor | None  # (B, R), or None
    auxiliary: Tensor | None = None  # what the method adds to the loss, (), or None

    @property
    def loss(self) -> Tensor:
        """Mean over the batch's label tokens, and what the method adds, ()."""
        loss = self.losses.sum() / self.tokens
        return loss if self.auxiliary is None else loss + self.auxiliary


class AdaptedModel(Module, ABC):
    """An adapted model as the engine of runs: cached states, absorbed attention, likelihoods of label words.

    Passes go through the hooks that :func:`mmpt.adapt` installs.
    """

    method: Method
    READING: ClassVar[type[TextToText]]  # what this kind of model makes of a task

    def __init__(
        self, model: PreTrainedModel, name: str, *, dropout: bool = False, cross_attention: str = "auto"
    ) -> None:
        """Take one adapter of a model; :func:`mmpt.models.engine.engine_of` chooses the class.

        With ``dropout`` the frozen network drops out while training, as the published code does; ``cross_attention`` is
        ``auto``, ``absorbed`` or ``projected`` (:mod:`mmpt.attention.absorb`).
        """
        super().__init__()
        adapters = adapters_of(model)
        self.backbone = model
        self.name, self.dropout = name, dropout
        # not as submodules: the model holds both
        object.__setattr__(self, "method", adapters.get(name))
        self.hooks, self.injection = adapters.hooks, adapters.hooks.injection
        self.prepare(cross_attention)
        self.backbone.eval()

    def prepare(self, cross_attention: str) -> None:
        """Make the kind's shortcuts ready. By default there are none."""

    def train(self, mode: bool = True) -> AdaptedModel:
        """Switch the method to training; the backbone only where it is to drop out."""
        drops = mode and self.dropout
        if (self.training, self.method.training, self.backbone.training) != (mode, mode, drops):  # a walk each step
            self.training = mode
            self.backbone.train(drops)
            self.method.train(mode)
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

    def contribute(self, batch: Mapping[str, Tensor]) -> Contribution:
        """The method's contribution to a batch of cached activations, ``means`` (B, d) and ``states`` (B, N, d)."""
        contribution: Contribution = self.method(self.means(batch) if self.method.reads_input else None)
        return contribution

    def means(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the method's router reads of each source (B, d), from cached activations where a batch has them."""
        if self.method.options.reads == "embedding" and "means" in batch:
            return batch["means"]
        if self.method.options.reads == "embedding":
            return self.mean_embeddings(batch)
        mask = batch["attention_mask"]
        states = batch["states"] if "states" in batch else self.constants(batch)
        return mean_embedding(states[:, : mask.shape[1]], mask)

    def mean_embeddings(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean word embedding of each source (B, d), float32."""
        return mean_embedding(embed(self.backbone, batch["input_ids"]), batch["attention_mask"])

    @torch.no_grad()
    def standardize_router(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Let a router that waits for the training texts read them: batches of all of them."""
        if (router := self.method.standardizing) is not None and not router.ready:
            router.standardize(map(self.means, batches))

    def start(self, batch: Mapping[str, Tensor]) -> Encoded:
        """A batch up to its targets: from cached activations where it has them, else from its ids."""
        if "states" in batch:
            return self.resume(batch)
        return self.encode(batch["input_ids"], batch["attention_mask"])

    @abstractmethod
    def encode(self, input_ids: Tensor, attention_mask: Tensor, adapter_names: Sequence[str] | None = None) -> Encoded:
        """Run method and network on source ids (B, T) and their mask (B, T).

        Each row may name an adapter of its own; ``adapter_names`` has B names then.
        """

    @abstractmethod
    def states(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Last hidden states (B, T, d) of a batch's sources, of the encoder or of the only stack, without prompts."""

    @abstractmethod
    def constants(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Hidden states (B, N, d) entering the first trained layer.

        N is T, or more where a kind has states of what follows a source.
        """

    @abstractmethod
    def resume(self, batch: Mapping[str, Tensor]) -> Encoded:
        """Resume from a batch's cached activations (:mod:`mmpt.cache`), ``states`` (B, N, d) and ``means`` (B, d)."""

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

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **more: Tensor) -> Output:
        """Teacher-forced pass over ids and mask (B, T) with labels (B, U), -100 for padding.

        ``more`` is what else the batch has: cached ``states`` (B, N, d) and ``means`` (B, d), say.
        """
        encoded = self.start({"input_ids": input_ids, "attention_mask": attention_mask, **more})
        losses, given = self.losses(encoded, labels), encoded.contribution
        return Output(losses, (labels != IGNORED).sum(), given.route_probs, given.auxiliary_loss)
