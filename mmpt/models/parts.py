"""Parts of a model that adapters need: its word embeddings, its table of positions, and its classification head.

Letters: V vocabulary, d model width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt.attention.architectures import architecture_of
from mmpt.errors import ConfigError

ADAPTERS = "mmpt_adapters"  # the submodule of a model that holds its adapters


def word_embeddings(model: PreTrainedModel) -> nn.Embedding:
    """The table of word embeddings (V, d) that the first stack reads."""
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    return table


def embed(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Word embeddings (…, d) of ids (…), as the first stack reads them instead of ids: with the model's scale."""
    embeddings: Tensor = word_embeddings(model)(ids)
    if architecture_of(model.config.model_type).scales_ids:
        stack: Any = model.get_encoder()
        embeddings = embeddings * stack.embed_scale
    return embeddings


def head_parameters(model: PreTrainedModel) -> list[str]:
    """Names of a classification head's parameters: all behind the last layer, the pooler included. Or none."""
    if not architecture_of(model.config.model_type).has_head:
        return []
    base = f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters()]
    outside = [name for name in names if not name.startswith((base, f"{ADAPTERS}."))]
    return [*outside, *(name for name in names if name.startswith(f"{base}pooler."))]


def refuse_positions(model: PreTrainedModel, tokens: int) -> None:
    """Refuse sequences longer than the model's table of positions, by a ConfigError with what can be made shorter."""
    if not architecture_of(model.config.model_type).limited:
        return
    limit = getattr(model.config, "max_position_embeddings", tokens)
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if table is not None and table.padding_idx is not None:  # RoBERTa counts on from the padding's
        limit -= table.padding_idx + 1
    if tokens > limit:
        raise ConfigError(
            f"{tokens} tokens (source, prompt and label) exceed the {limit} positions of this "
            f"{model.config.model_type} model; lower data.max_length, or method.num_virtual_tokens of prompts"
        )
