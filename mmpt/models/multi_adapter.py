"""One batch for several adapters of one backbone: each row goes through the frozen network with its own.

Letters: K adapters, B rows in all, T source tokens, P prompt tokens, d model width, C candidate labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.data.collate import IGNORED
from mmpt.methods.base import Contribution, mean_embedding
from mmpt.models.adapted import AdaptedModel, Encoded, with_prompt
from mmpt.models.backbone import embed, word_embeddings
from mmpt.models.stack import stack_prefixes, stackable


def passes(models: Sequence[AdaptedModel]) -> list[list[int]]:
    """Which adapters can share a pass, as few passes as their order allows.

    Apart go gated prefixes, and prefixes that differ in layers, in having positions, or with them in length.
    """
    found: list[list[int]] = []
    apart: set[int] = set()
    contributions = [_probe(model) for model in models]
    for index, model in enumerate(models):
        if model.method.reads_encoder or contributions[index].layer_prompts is not None:
            found.append([index])  # what it adds depends on the encoder's states
            apart.add(index)
            continue
        for members in found:
            if members[0] not in apart and stackable(
                [contributions[member] for member in [*members, index]], model.injection.shapes
            ):
                members.append(index)
                break
        else:
            found.append([index])
    return found


@torch.no_grad()
def _probe(model: AdaptedModel) -> Contribution:
    """What a method contributes to some input."""
    table = word_embeddings(model.backbone)
    mean = torch.zeros(1, table.embedding_dim, device=table.weight.device)
    contribution: Contribution = model.method(mean if model.method.reads_input else None)
    return contribution


@torch.no_grad()
def encode(models: Sequence[AdaptedModel], rows: Sequence[int], input_ids: Tensor, attention_mask: Tensor) -> Encoded:
    """Run K methods, each on its rows, and the encoder once on all.

    Args:
        models: On one backbone, in evaluation mode; their prefixes can be stacked.
        rows: How many rows each has; an adapter's rows lie together.
        input_ids: (B, T).
        attention_mask: (B, T).

    Returns:
        The batch behind the encoder, which any of the models can rank, decode or generate.
    """
    if len(models) == 1:
        return models[0].encode(input_ids, attention_mask)
    first = models[0]
    contributions: list[Contribution] = []
    embedded: list[Tensor] = []
    masks: list[Tensor] = []
    everything = embed(first.backbone, input_ids)
    parts = zip(models, everything.split(list(rows)), attention_mask.split(list(rows)), strict=True)
    for model, embeddings, mask in parts:
        contribution = model.method(mean_embedding(embeddings, mask) if model.method.reads_input else None)
        embeddings, mask = with_prompt(contribution, embeddings, mask)
        contributions.append(contribution)
        embedded.append(embeddings)
        masks.append(mask)
    longest = max(part.shape[1] for part in masks)
    states = torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in embedded])
    mask = torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in masks])
    prefixes = stack_prefixes(contributions, rows, first.injection.shapes, states)
    first.injection.set(prefixes)
    return first.encode_embeddings(states, mask, Contribution(prefixes))


@torch.no_grad()
def rank(model: AdaptedModel, encoded: Encoded, candidates: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """Log-likelihood of each row's own candidates, (B, C), float32; C is that of the row with most, zero elsewhere."""
    most = max(len(row) for row in candidates)
    longest = max(len(ids) for row in candidates for ids in row)
    filled = [[*row, *[[]] * (most - len(row))] for row in candidates]
    padded = [[*ids, *[IGNORED] * (longest - len(ids))] for row in filled for ids in row]
    labels = torch.tensor(padded, device=encoded.states.device)  # (B·C, U)
    return -model.losses(encoded, labels).view(len(candidates), most)
