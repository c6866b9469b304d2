from __future__ import annotations

import torch

from mmpt.data.collate import Collator


def test_batches_are_padded_and_masked() -> None:
    features = [
        {"input_ids": [5, 6, 1], "labels": [3, 1], "index": 9},
        {"input_ids": [5, 1], "labels": [4, 3, 1], "index": 2},
    ]
    batch = Collator(pad_token_id=7)(features)
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[5, 6, 1], [5, 1, 7]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [[3, 1, -100], [4, 3, 1]],
        "index": [9, 2],
    }
    assert all(value.dtype == torch.int64 for value in batch.values())
    assert set(Collator(0)([{"input_ids": [1]}])) == {"input_ids", "attention_mask"}
