"""What kinds of models that write text have in common: a target's loss, and the likelihood of every label's text.

Letters: B batch, T source tokens, U target tokens, C candidate labels, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mmpt.data.collate import IGNORED
from mmpt.models.adapted import AdaptedModel, Encoded
from mmpt.models.loss import only_labelled, row_losses
from mmpt.models.parts import word_embeddings

FLOAT_BYTES = 4  # losses are computed in float32
PASS_BYTES = 512 * 2**20  # logits and source states of a pass that ranks candidates; its peak is a few times that


class TextModel(AdaptedModel):
    """A frozen model with a method, whose head gives logits over the vocabulary."""

    @abstractmethod
    def decode(self, encoded: Encoded, labels: Tensor, places: Tensor | None = None) -> Tensor:
        """Logits for labels (B', U), -100 for padding.

        B' is a multiple of B, an example's rows together. Gives (B', U, V), or (n, V) within
        :func:`mmpt.models.loss.only_labelled`, which gives ``places``, those of the tokens whose logits are wanted.
        """

    def logits(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Teacher-forced logits (B, U, V), padding included; arguments as of :meth:`forward`."""
        return self.decode(self.start({"input_ids": input_ids, "attention_mask": attention_mask}), labels)

    def losses(self, encoded: Encoded, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """See the base class."""
        with only_labelled(self.backbone, labels) as rows:
            return row_losses(self.decode(encoded, labels, rows), labels, rows, smoothing)

    def likelihoods(self, encoded: Encoded, candidates: Sequence[Sequence[int]]) -> Tensor:
        """See the base class; candidates have their end of sequence."""
        return self.likelihoods_of_rows(encoded, [candidates] * encoded.states.shape[0])

    def likelihoods_of_rows(self, encoded: Encoded, candidates: Sequence[Sequence[Sequence[int]]]) -> Tensor:
        """Log-likelihood (B, C), float32, of each source's own candidates, lists of token ids.

        It is the sum over a candidate's tokens; C is that of the row with most, zero elsewhere.
        """
        most, longest = max(map(len, candidates)), max(len(ids) for row in candidates for ids in row)
        filled = [[*row, *[[]] * (most - len(row))] for row in candidates]
        padded = [[*ids, *[IGNORED] * (longest - len(ids))] for row in filled for ids in row]
        labels = torch.tensor(padded, device=encoded.states.device).view(len(candidates), most, longest)
        sources, tokens, width = encoded.states.shape
        vocabulary = word_embeddings(self.backbone).num_embeddings
        each = FLOAT_BYTES * sources * (longest * vocabulary + tokens * width)  # logits, and the source's states
        parts = labels.split(max(1, PASS_BYTES // each), dim=1)  # memory does not grow with the number of candidates
        losses = [self.losses(encoded, part.flatten(0, 1)).view(len(candidates), -1) for part in parts]
        return -torch.cat(losses, dim=1)
