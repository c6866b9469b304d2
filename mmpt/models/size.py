"""Limits on the size of a described network, checked before any of it is allocated: docs/security.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from mmpt.config.schema import ModelConfig
from mmpt.errors import ModelError
from mmpt.models.quantization import weight_bytes
from mmpt.utils.machine import GB, memory_bytes
from mmpt.utils.untrusted import one_line

MOST = {"layer": 1000, "label": 100_000}  # by a word in the name of a setting: Python counts these one by one


def refuse_counts(settings: Mapping[str, Any], where: str) -> None:
    """Refuse a network's settings with too many layers or labels, before anything is made of them.

    ModelError: one is too many; ``where`` names the settings.
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            refuse_counts(value, where)
        for word, most in MOST.items():
            if word in str(name) and isinstance(value, int | float) and value > most:
                raise ModelError(f"{where}: {name}={str(value)[:40]} is too large; the limit is {most}")


def network_without_weights(
    config: PreTrainedConfig, kind: Any, where: str, attention: str = "eager", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A network on torch's device ``meta``, which has shapes and no numbers; ``kind`` is transformers' Auto class.

    ModelError: no network can be made of it; ``where`` names it.
    """
    options = {"attn_implementation": attention, "dtype": dtype, "trust_remote_code": False}
    try:
        with torch.device("meta"), no_init_weights():
            network: PreTrainedModel = kind.from_config(deepcopy(config), **options)
            network.tie_weights()
    except Exception as error:  # of transformers and torch, for a shape that cannot be
        raise ModelError(f"{where} makes no network ({one_line(error)})") from error
    return network


def refuse_network(shape: PreTrainedConfig, kind: Any, config: ModelConfig, where: str) -> PreTrainedModel:
    """Refuse a network that memory cannot hold, in the type and quantization of ``config``; returns it without numbers.

    ``kind`` is transformers' Auto class. ModelError: it is too large, or no network can be made of ``shape``; ``where``
    names it.
    """
    network, dtype = network_without_weights(shape, kind, where), getattr(torch, config.dtype)
    size = weight_bytes(network, dtype, config.cross_attention)[config.quantization]
    room = math.inf if config.device_map else memory_bytes()  # the rest of it lies on GPUs and on disk
    if size > room:
        raise ModelError(
            f"{where} describes {size / GB:.0f} GB of weights, and there are {room / GB:.0f} GB of memory; "
            "choose a smaller model, model.dtype=bfloat16, model.quantization=int8 or nf4, or model.device_map=auto"
        )
    return network
