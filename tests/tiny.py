"""Tiny random backbones: the real architectures at toy size, for tests of methods and models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from mmpt.attention.architectures import architecture_of
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import CLASSES, Backbone
from mmpt.models.engine import build_engine

SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 24,
    "d_kv": 8,
    "num_heads": 3,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 3,  # other than the encoder's, so that mixing them up fails
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
BART: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "scale_embedding": True,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "forced_eos_token_id": None,
}
LLAMA: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,  # each for two heads of queries
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
SLIDING: dict[str, Any] = {
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
SHAPES: dict[str, dict[str, Any]] = {
    "bart": BART,
    "pegasus": BART,
    "gpt2": {
        "vocab_size": 96,
        "n_embd": 24,
        "n_layer": 3,
        "n_head": 3,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 1,
    },
    "opt": {
        "vocab_size": 96,
        "hidden_size": 24,
        "word_embed_proj_dim": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 1,
    },
    "llama": LLAMA,
    "qwen2": {**LLAMA, **SLIDING, "hidden_size": 32, "use_sliding_window": True},
    "qwen3": {**LLAMA, **SLIDING, "use_sliding_window": True},
    "gemma": LLAMA,
    "gemma2": {**LLAMA, **SLIDING, "query_pre_attn_scalar": 8},
    "gemma3_text": {**LLAMA, **SLIDING, "query_pre_attn_scalar": 8},
}


class Vocabulary:
    """What a tokenizer must tell ``init=vocab`` and ``init=text``: a piece for each letter, 2 for those above ASCII."""

    all_special_ids = (0, 1, 2)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [3 + ord(letter) % 93 if letter.isascii() else 2 for letter in text]
        return {"input_ids": [*ids, 1] if add_special_tokens else ids}

    def __len__(self) -> int:
        return int(SHAPE["vocab_size"])


def backbone(model_type: str = "t5", attention: str = "sdpa", seed: int = 0, **shape: Any) -> Backbone:
    """A frozen random backbone with larger weights than at initialisation, so that attention matters."""
    torch.manual_seed(seed)
    architecture = architecture_of(model_type)
    config = AutoConfig.for_model(model_type, **{**SHAPES.get(model_type, SHAPE), **shape})
    attention = "eager" if architecture.soft_capped else attention
    model = CLASSES[architecture.kind].from_config(config, attn_implementation=f"mmpt_{attention}")
    attended = {id(p) for found in architecture.modules(model).values() for m in found for p in m.parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name:
                parameter.copy_(torch.randn_like(parameter))
            elif id(parameter) in attended and "norm" not in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    model.requires_grad_(False).eval()
    return Backbone(model, Vocabulary(), "tiny", "tiny random")  # type: ignore[arg-type]


def adapted(method: str, options: dict[str, Any] | None = None, **where: Any) -> AdaptedModel:
    """A method on a fresh tiny backbone."""
    built = backbone(**where)
    torch.manual_seed(1)
    return build_engine(built, parse(method, options or {}))


def batch(examples: int = 5, longest: int = 9, target: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Sources (B, T), masks (B, T) and labels (B, U) of mixed lengths, with the end token 1."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, SHAPE["vocab_size"], (examples, longest), generator=generator)
    mask = torch.ones_like(ids)
    labels = torch.randint(3, SHAPE["vocab_size"], (examples, target), generator=generator)
    labels[:, -1] = 1
    for row in range(examples):
        length = longest - row % 4
        ids[row, length - 1], ids[row, length:], mask[row, length:] = 1, 0, 0
        if row % 2:
            labels[row, -2], labels[row, -1] = 1, -100
    return ids, mask, labels
