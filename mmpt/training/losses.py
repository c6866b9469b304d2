"""What training minimises: ``trainer.loss``.

A loss of your own is a file ``DIR/loss/NAME.py`` (``--config-dir DIR trainer.loss=NAME``) with a function
``loss(model, encoded, labels)`` that returns one number per example. See docs/training.md.

Letters: B batch, U target tokens, C label words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.data.collate import IGNORED
from mmpt.errors import ConfigError, DataError, MmptError
from mmpt.models.adapted import AdaptedModel, Encoded
from mmpt.training.memory import is_out_of_memory
from mmpt.utils import extensions

T = TypeVar("T")


class Loss(Protocol):
    """The loss of an optimizer step is the sum of all examples' losses, divided by the sum of their weights."""

    def __call__(self, model: AdaptedModel, encoded: Encoded, labels: Tensor) -> Tensor:
        """Compute the loss of each example.

        Args:
            model: Frozen backbone and method.
            encoded: The batch up to where its targets come in.
            labels: Target ids (B, U), -100 for padding; of a classification head, classes (B, 1).

        Returns:
            (B,), with gradients.
        """

    def weight(self, labels: Tensor) -> int:
        """The weight of a batch, from its labels (B, U) in host memory."""


class CrossEntropy:
    """Mean over label tokens of their cross-entropy."""

    def __init__(self, smoothing: float = 0.0) -> None:
        """Set the share of a label's probability that is spread over all tokens, or over all classes."""
        self.smoothing = smoothing

    def __call__(self, model: AdaptedModel, encoded: Encoded, labels: Tensor) -> Tensor:
        """See :class:`Loss`."""
        return model.losses(encoded, labels, self.smoothing)

    def weight(self, labels: Tensor) -> int:
        """The number of label tokens."""
        return int((labels != IGNORED).sum())


class LabelRanking:
    """Mean over examples of the cross-entropy of a softmax over the likelihoods of the task's label words.

    It is what an evaluation by ranking decides by. Logits exist at the positions of label words only.
    """

    def __init__(self, candidates: Sequence[Sequence[int]], smoothing: float = 0.0) -> None:
        """Set the token ids of each of C label words, and the share of the target's that is spread over all of them."""
        self.candidates, self.smoothing = candidates, smoothing
        longest = max(map(len, candidates))
        self.padded = torch.tensor([[*ids, *[IGNORED] * (longest - len(ids))] for ids in candidates])  # (C, U)

    def __call__(self, model: AdaptedModel, encoded: Encoded, labels: Tensor) -> Tensor:
        """See :class:`Loss`."""
        self.padded = self.padded.to(labels.device)
        labels = F.pad(labels, (0, self.padded.shape[1] - labels.shape[1]), value=IGNORED)
        targets = (labels.unsqueeze(1) == self.padded).all(dim=2).int().argmax(dim=1)  # (B,)
        scores = model.likelihoods(encoded, self.candidates)
        return F.cross_entropy(scores, targets, reduction="none", label_smoothing=self.smoothing)

    def weight(self, labels: Tensor) -> int:
        """The number of examples."""
        return len(labels)


class Custom:
    """A function of the user's, and the number of examples as its weight unless the file has ``weight`` too."""

    def __init__(self, name: str, function: Callable[..., Tensor], weight: Callable[[Tensor], int] = len) -> None:
        """Set the file's name without ``.py``, and both functions."""
        self._name, self._function, self._weight = name, function, weight

    def __call__(self, model: AdaptedModel, encoded: Encoded, labels: Tensor) -> Tensor:
        """See :class:`Loss`; ConfigError where the function fails, or does not return one number per example."""
        losses = self._call(self._function, model, encoded, labels)
        if not isinstance(losses, Tensor) or losses.shape != labels.shape[:1]:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ConfigError(f"the loss must return one number per example, ({len(labels)},); it returned {shape}")
        return losses

    def weight(self, labels: Tensor) -> int:
        """See :class:`Loss`; ConfigError where the function fails."""
        return self._call(self._weight, labels)

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        try:
            return function(*args)
        except Exception as error:
            if isinstance(error, MmptError) or is_out_of_memory(error):  # for which a smaller batch may be tried
                raise
            file = extensions.find("loss", self._name)
            raise ConfigError(f"trainer.loss={self._name} {extensions.raised(error)}; correct {file}") from error


def create_loss(
    name: str, smoothing: float, candidates: Sequence[Sequence[int]], targets: Iterable[Sequence[int]]
) -> Loss:
    """Create the loss ``trainer.loss=name`` of a run, from the token ids of each label word and training target.

    ``smoothing`` is ``trainer.label_smoothing_factor``; no file of the user's takes it. ConfigError: there is no such
    loss. DataError: label ranking needs targets that are label words.
    """
    if name == "cross_entropy":
        return CrossEntropy(smoothing)
    if name != "label_ranking":
        return load_loss(name)
    known = {tuple(ids) for ids in candidates}
    unknown = Counter(tuple(ids) not in known for ids in targets)  # such as a word that was cut
    if wrong := unknown[True]:
        raise DataError(
            f"trainer.loss=label_ranking: {wrong} of {unknown.total()} training targets are no label word; "
            "raise data.max_length, or set trainer.loss=cross_entropy"
        )
    return LabelRanking(candidates, smoothing)


def load_loss(name: str) -> Custom:
    """Load a loss of the user's by its file's name without ``.py``.

    ConfigError: there is no such file, or it has no function ``loss``.
    """
    module = extensions.load("loss", name)
    function = getattr(module, "loss", None)
    if not callable(function):
        raise ConfigError(f"trainer.loss={name}: loss/{name}.py has no function loss(model, encoded, labels)")
    return Custom(name, function, getattr(module, "weight", len))
