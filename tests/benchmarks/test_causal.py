from __future__ import annotations

import torch

from benchmarks.causal import joined, measure
from mmpt.data.collate import IGNORED


def test_every_way_takes_a_step():
    rows = measure("bert_base", examples=2, rounds=1, fast="float32", layers=5)
    assert {row["way"] for row in rows} == {"peft prefix", "peft lora", "ours, all layers", "ours, last_4, cached"}


def test_labels_follow_their_sources():
    sources = torch.tensor([[5, 6, 7], [8, 0, 0]])
    labels = torch.tensor([[1, IGNORED], [2, 3]])
    batch = joined({"input_ids": sources, "attention_mask": (sources > 0).long(), "labels": labels})
    assert batch["input_ids"].tolist() == [[5, 6, 7, 1], [8, 2, 3, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, IGNORED, 1], [IGNORED, 2, 3, IGNORED]]
    assert batch["attention_mask"].sum(dim=1).tolist() == [4, 3]
