"""Tiny random encoders with a classification head, and a word tokenizer that is saved as a checkpoint's is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import Backbone
from mmpt.models.engine import build_engine
from mmpt.models.parts import head_parameters
from tests.tiny import Vocabulary

ENCODERS: dict[str, dict[str, Any]] = {  # what differs from the common shape
    "bert": {},
    "roberta": {"type_vocab_size": 1},  # as its checkpoints have it
    "electra": {"embedding_size": 16},  # other than the hidden states', so that mixing them up fails
    "modernbert": {"local_attention": 4, "global_attn_every_n_layers": 2, "classifier_pooling": "mean"},
}
SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "cls_token_id": 2,
    "eos_token_id": 1,
    "sep_token_id": 1,
}


def network(model_type: str, attention: str = "sdpa", classes: int = 2, seed: int = 0, **shape: Any) -> PreTrainedModel:
    """A random network with larger weights than at initialisation, so that attention matters."""
    torch.manual_seed(seed)
    given = {**SHAPE, **ENCODERS[model_type], **shape, "num_labels": classes}
    config = AutoConfig.for_model(model_type, **given)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=f"mmpt_{attention}")
    with torch.no_grad():
        for name, parameter in model.base_model.named_parameters():
            if parameter.dim() == 2 and "embeddings" not in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model


def backbone(model_type: str, **more: Any) -> Backbone:
    """The network, frozen, with a head that is drawn for each model built on it."""
    model = network(model_type, **more).requires_grad_(False).eval()
    fresh = tuple(head_parameters(model))
    return Backbone(model, Vocabulary(), "tiny", "tiny random", fresh=fresh)  # type: ignore[arg-type]


def adapted(method: str, options: dict[str, Any] | None = None, model_type: str = "bert", **more: Any) -> AdaptedModel:
    """A method on a fresh tiny encoder."""
    built = backbone(model_type, **more)
    torch.manual_seed(1)
    return build_engine(built, parse(method, options or {}))


def batch(examples: int = 5, longest: int = 9) -> dict[str, Tensor]:
    """Sources of mixed lengths as pairs of texts, and their classes."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, SHAPE["vocab_size"], (examples, longest), generator=generator)
    types, mask = torch.zeros_like(ids), torch.ones_like(ids)
    for row in range(examples):
        length = longest - row % 4
        ids[row, 0], ids[row, length // 2], ids[row, length - 1], ids[row, length:] = 2, 1, 1, 0
        types[row, length // 2 + 1 : length], mask[row, length:] = 1, 0
    labels = torch.tensor([[row % 2] for row in range(examples)])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels}


def choices(examples: int = 3, each: int = 2) -> dict[str, Tensor]:
    """Examples with a source for each class: (B, C, T)."""
    given = batch(examples * each)
    labels = given.pop("labels")[:examples]
    return {**{name: rows.unflatten(0, (examples, each)) for name, rows in given.items()}, "labels": labels}


def checkpoint(directory: Path, words: list[str], model_type: str = "bert") -> Path:
    """Save a base network without a head, and a tokenizer of whole words that joins pairs."""
    names = ["[PAD]", "[SEP]", "[CLS]", "[UNK]", *words]
    tokenizer = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 1)]
    )
    special = {"pad_token": "[PAD]", "sep_token": "[SEP]", "cls_token": "[CLS]", "unk_token": "[UNK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **special).save_pretrained(directory)
    network(model_type, vocab_size=len(names)).base_model.save_pretrained(directory)
    return directory
