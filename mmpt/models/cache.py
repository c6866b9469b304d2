"""The activation cache: what lies before the first trainable parameter is computed once.

With no trainable part in or before the encoder, and no dropout in the frozen network, the encoder's output and the mean
word embedding that routers read are constants of backbone, tokenizer, text and length. They are computed once and serve
every epoch and evaluation. No padding is kept.

Letters: N examples, T tokens, d model width.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpt.methods.base import mean_embedding
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import word_embeddings

SHARE = 0.5  # of the memory that is free


@dataclass(frozen=True)
class Activations:
    """Encoder outputs of N examples without padding, and their mean word embeddings.

    Attributes:
        states: (sum of T, d), in the backbone's dtype.
        starts: N + 1 first rows; example n has rows ``starts[n]`` to ``starts[n + 1]``.
        means: (N, d), float32.
    """

    states: Tensor
    starts: list[int]
    means: Tensor

    def batch(self, rows: Sequence[int], longest: int) -> dict[str, Tensor]:
        """``states`` (B, longest, d), zero where padded, and ``means`` (B, d) of some examples."""
        padded = self.states.new_zeros(len(rows), longest, self.states.shape[1])
        for place, row in enumerate(rows):
            first, last = self.starts[row], self.starts[row + 1]
            padded[place, : last - first] = self.states[first:last]
        return {"states": padded, "means": self.means[rows]}


@torch.no_grad()
def compute(
    model: AdaptedModel, lengths: Sequence[int], batches: Iterable[tuple[Sequence[int], Mapping[str, Tensor]]]
) -> Activations:
    """Run the encoder over a split.

    Args:
        model: A model whose encoder nothing trainable reaches.
        lengths: Tokens of each of the N sources.
        batches: Rows and their ``input_ids`` and ``attention_mask`` (B, T), on the model's device, every row once.

    Returns:
        Activations on the model's device.
    """
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    table = word_embeddings(model.backbone)
    width, device = table.embedding_dim, table.weight.device
    states = torch.empty(starts[-1], width, dtype=table.weight.dtype, device=device)
    means = torch.empty(len(lengths), width, device=device)
    encoder = model.backbone.get_encoder()
    with model.injection.active({}):
        for rows, batch in batches:
            embeddings = table(batch["input_ids"])
            mask = batch["attention_mask"]
            output = encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
            means[list(rows)] = mean_embedding(embeddings, mask)
            for place, row in enumerate(rows):
                states[starts[row] : starts[row + 1]] = output[place, : lengths[row]]
    return Activations(states, starts, means)


def needed_bytes(model: AdaptedModel, tokens: int) -> int:
    """Bytes of the activations of so many source tokens."""
    weight = word_embeddings(model.backbone).weight
    return tokens * weight.shape[1] * weight.element_size()


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that are free where the cache would lie."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
