"""Parts of a model that adapters need: word embeddings, positions, classification head, and a fingerprint of weights.

Letters: V vocabulary, d model width.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt.attention.architectures import architecture_of
from mmpt.errors import ConfigError

ADAPTERS = "mmpt_adapters"  # the submodule of a model that holds its adapters
_FOREIGN = re.compile(r"\.(lora|ia3)_")  # parameters that peft has put into layers


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


def weights_fingerprint(
    model: nn.Module, without: Collection[str] = (), values: Mapping[str, Tensor] | None = None
) -> str:
    """SHA-256 over names, shapes and bytes of a model's own parameters, those of adapters and ``without`` left out.

    Layers that peft has wrapped count under their own names. ``values`` are used instead of the model's, by name.
    """
    digest = hashlib.sha256()
    given = {name.replace(".base_layer.", "."): value for name, value in model.named_parameters()}
    for name, parameter in sorted({**given, **(values or {})}.items()):
        if name in without or name.startswith(f"{ADAPTERS}.") or _FOREIGN.search(name):
            continue
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def has_weights(model: PreTrainedModel, fingerprint: object, head: Mapping[str, Tensor] | None = None) -> bool:
    """Whether a fingerprint, as an adapter states it, is that of a model's weights.

    Of a head, it may cover all parameters, those that a checkpoint can have (its pooler), or none. ``head`` has values
    to use instead of those that the model's head has now.
    """
    names = set(head_parameters(model))
    leave_out = {frozenset(names), frozenset(name for name in names if ".pooler." not in name), frozenset()}
    return any(weights_fingerprint(model, names, head) == fingerprint for names in leave_out)
