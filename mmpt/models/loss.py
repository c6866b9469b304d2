"""Cross-entropy where labels are: logits of padding are never computed, and one table of logits is stored, not four.

Letters: B batch, U target tokens, n target tokens with a label, V vocabulary, d model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from mmpt.data.collate import IGNORED


@contextmanager
def only_labelled(model: PreTrainedModel, labels: Tensor) -> Iterator[Tensor | None]:
    """Let the head of a model see only the positions that have a label (B, U), which is not -100.

    Yields:
        Which rows of the flattened (B·U,) positions the head computes, logits (n, V); None: all of them, padding
        included, as always on a GPU, where to count the labelled ones would wait for the device.
    """
    head = model.get_output_embeddings()
    assert head is not None
    rows = None if labels.device.type != "cpu" else (labels.flatten() != IGNORED).nonzero().squeeze(1)
    if rows is not None and len(rows) == labels.numel():
        rows = None

    def select(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0].flatten(0, 1)  # (B·U, d), or (n, d) of a decoder that computes only these
        return (hidden if rows is None or len(hidden) == len(rows) else hidden[rows], *args[1:])

    with head.register_forward_pre_hook(select):
        yield rows


def row_losses(logits: Tensor, labels: Tensor, rows: Tensor | None, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each row's label tokens (B, U), -100 for padding, summed, in nats: (B,), float32.

    Logits are (n, V) of the positions ``rows`` that :func:`only_labelled` gave; ``smoothing`` is the share of a label's
    probability that is spread over the vocabulary.
    """
    flat = labels.flatten()
    if rows is None:
        return token_losses(logits, flat, smoothing).view(labels.shape).sum(dim=1)
    losses = token_losses(logits, flat[rows], smoothing)
    return losses.new_zeros(labels.shape[0]).index_add(0, rows // labels.shape[1], losses)


def token_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats, float32 (n,), of logits (n, V) of any float type and labels (n,), zero where one is -100.

    The same values and gradients as ``torch.nn.functional.cross_entropy(..., reduction="none",
    label_smoothing=smoothing)``, once differentiable.
    """
    losses: Tensor = _TokenLosses.apply(logits, labels, smoothing)
    return losses


class _TokenLosses(torch.autograd.Function):
    """Keeps the probabilities, and turns them into the gradient, in the same memory."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        values = logits.float()
        chosen = labels.clamp(min=0).unsqueeze(1)  # (n, 1)
        probs = torch.softmax(values, dim=-1)
        # log Σ exp(z) = z_max - log p_max, and p_max is at least 1/V: no precision is lost where p of the label is tiny
        total = values.amax(dim=-1, keepdim=True) - probs.amax(dim=-1, keepdim=True).log()
        losses = (total - values.gather(1, chosen)).squeeze(1)
        if smoothing:
            losses = (1 - smoothing) * losses + smoothing * (total.squeeze(1) - values.mean(dim=-1))
        ctx.save_for_backward(probs, chosen, labels)
        ctx.dtype, ctx.smoothing = logits.dtype, smoothing
        return losses.masked_fill(labels == IGNORED, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        probs, chosen, labels = ctx.saved_tensors
        scale = gradient.masked_fill(labels == IGNORED, 0.0).unsqueeze(1)  # (n, 1)
        # in the same memory: a second pass over this graph would read the gradient here, and autograd then raises
        probs.mul_(scale)
        probs.scatter_add_(1, chosen, (ctx.smoothing - 1) * scale)
        if ctx.smoothing:
            probs.sub_(scale * (ctx.smoothing / probs.shape[-1]))
        return probs.to(ctx.dtype), None, None
