"""What holds of every model with an adapter: an example gets the same in any batch, and with any cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmpt.models.adapted import AdaptedModel
from tests.tiny import SHAPE, backbone, batch
from tests.tolerance import assert_close, terms_of

WIDTH = int(SHAPE["d_model"])  # terms of a value that one matrix of a tiny network makes
TERMS = terms_of(backbone().model)  # of its logits


def logits(model: AdaptedModel, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """(B, U, V), without gradients."""
    with torch.no_grad():
        return model.logits(ids, mask, labels)


def assert_rows_are_independent(model: AdaptedModel) -> None:
    """Alone, in another order, and with more padding, an example has the logits that it has in its batch."""
    ids, mask, labels = batch()
    together, terms = logits(model, ids, mask, labels), terms_of(model)
    for row in range(len(ids)):
        length, target = int(mask[row].sum()), int((labels[row] != -100).sum())
        alone = logits(model, ids[row : row + 1, :length], mask[row : row + 1, :length], labels[row : row + 1, :target])
        assert_close(alone[0], together[row, :target], terms)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert_close(logits(model, ids[order], mask[order], labels[order]), together[order], terms)
    wide_ids, wide_mask = (torch.nn.functional.pad(tensor, (0, 6)) for tensor in (ids, mask))
    assert_close(logits(model, wide_ids, wide_mask, labels), together, terms)


def assert_generation_agrees(model: AdaptedModel, static: bool = False) -> None:
    """With and without caches the same tokens, and of beams too an example's own."""
    ids, mask, _ = batch()
    encoded = model.encode(ids, mask)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    plain = model.generate(encoded, use_cache=False, **options)
    assert torch.equal(model.generate(encoded, use_cache=True, **options), plain)
    if static:
        assert torch.equal(model.generate(encoded, cache_implementation="static", **options), plain)
    beams = model.generate(encoded, num_beams=3, **options)
    alone = model.generate(model.encode(ids[2:3], mask[2:3]), num_beams=3, **options)
    length = min(beams.shape[1], alone.shape[1])
    assert torch.equal(beams[2, :length], alone[0, :length]), "beams of one example take another's prefix"
