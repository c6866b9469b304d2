"""Candidates are ranked in passes of bounded size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmpt.models.kinds import text
from tests.tiny import adapted, batch
from tests.tolerance import assert_close, terms_of

CANDIDATES = [[5, 1], [6, 7, 1], [8, 1], [9, 10, 1], [11, 12, 13, 1], [14, 1], [15, 16, 1]]


@pytest.mark.parametrize("model_type", ["t5", "gpt2"])
@pytest.mark.parametrize(("at_once", "sizes"), [(7, [7]), (3, [3, 3, 1]), (0, [1] * 7)])
def test_passes_are_bounded(model_type: str, at_once: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("multimask", model_type=model_type).eval()
    ids, mask, _ = batch()
    encoded = model.encode(ids, mask)
    whole = model.rank(encoded, CANDIDATES)
    rows: list[int] = []
    decode = model.decode  # type: ignore[operator]

    def counted(encoded: object, labels: Tensor, *more: object) -> Tensor:
        rows.append(len(labels))
        return decode(encoded, labels, *more)  # type: ignore[no-any-return]

    monkeypatch.setattr(model, "decode", counted)
    each = 4 * len(ids) * (4 * 96 + encoded.states.shape[1] * 24)  # logits (B, U, V) and states (B, T, d), float32
    monkeypatch.setattr(text, "PASS_BYTES", at_once * each)
    found = model.rank(encoded, CANDIDATES)
    assert rows == [len(ids) * size for size in sizes]
    if len(sizes) == 1:
        assert torch.equal(found, whole)
    else:
        assert_close(found, whole, terms_of(model.backbone))
