"""Tiny random models as transformers gives them: its own attention, nothing of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from mmpt.attention.architectures import architecture_of
from mmpt.models.backbone import CLASSES
from tests import tiny_encoders
from tests.tiny import SHAPE, SHAPES
from tests.tiny import batch as pairs

FAMILIES = ["t5", "bart", "gpt2", "llama", "bert"]
PROMPTS, DEEP = ["prompt", "smop", "dept"], ["prefix", "multimask"]


def model(family: str = "t5", attention: str = "sdpa", seed: int = 0, **shape: Any) -> PreTrainedModel:
    """A model with larger weights than at initialisation, so that attention matters."""
    torch.manual_seed(seed)
    kind = architecture_of(family).kind
    if kind == "encoder":
        given = {**tiny_encoders.SHAPE, **tiny_encoders.ENCODERS[family], "num_labels": 2, **shape}
    else:
        given = {**SHAPES.get(family, SHAPE), **shape}
    built = CLASSES[kind].from_config(AutoConfig.for_model(family, **given), attn_implementation=attention)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.dim() == 2 and "embed" not in name and "shared" not in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    result: PreTrainedModel = built.eval()
    return result


def batch(family: str, examples: int = 4) -> dict[str, Tensor]:
    """A batch with labels: of a decoder-only model, prompt and answer in one row, padded on the right."""
    kind = architecture_of(family).kind
    if kind == "encoder":
        given = tiny_encoders.batch(examples)
        return {**given, "labels": given["labels"][:, 0]}
    ids, mask, labels = pairs(examples)
    if kind == "seq2seq":
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
    rows = torch.zeros(examples, ids.shape[1] + labels.shape[1], dtype=torch.long)
    seen, targets = torch.zeros_like(rows), torch.full_like(rows, -100)
    for row in range(examples):
        source, answer = ids[row][mask[row].bool()], labels[row][labels[row] >= 0]
        end = len(source) + len(answer)
        rows[row, :end], seen[row, :end] = torch.cat([source, answer]), 1
        targets[row, len(source) : end] = answer
    return {"input_ids": rows, "attention_mask": seen, "labels": targets}


def prompts(family: str, examples: int = 4) -> dict[str, Tensor]:
    """What :func:`batch` has before the answers; of a decoder-only model, padded on the left."""
    ids, mask, _ = pairs(examples)
    if architecture_of(family).kind == "causal":
        order = (torch.arange(ids.shape[1]) - (mask == 0).sum(dim=1, keepdim=True)) % ids.shape[1]
        ids, mask = ids.gather(1, order), mask.gather(1, order)
    return {"input_ids": ids, "attention_mask": mask}
