"""Where the parts of a frozen network lie with ``model.device_map=auto``: on GPUs, in the CPU's memory, on disk.

accelerate chooses, and its hooks bring inputs and weights to where each part runs. Inputs enter on the device of the
word embeddings, and what is trained lies there too.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from typing import Any

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import get_balanced_memory
from transformers import PreTrainedModel

from mmpt.attention.architectures import architecture_of
from mmpt.config.schema import ModelConfig
from mmpt.errors import ConfigError
from mmpt.models.parts import head_parameters, word_embeddings
from mmpt.utils.text import size_text

Places = dict[str, Any]  # path of a module -> a GPU's number, "cpu" or "disk"


def places_of(network: PreTrainedModel, config: ModelConfig) -> Places:
    """Choose a place for each part of a network that has no weights yet: layers whole, what is trained in the first.

    ConfigError: ``model.max_memory`` names a GPU that is absent, or there is no room for the word embeddings.
    """
    logging.getLogger("accelerate").setLevel(logging.ERROR)  # says what we say in spread_of
    warnings.filterwarnings("ignore", message="The following device_map keys")  # that a buffer is no module
    limits = {int(name) if name.isdigit() else name: size for name, size in config.max_memory.items()}
    count = torch.cuda.device_count()
    if absent := [name for name in limits if isinstance(name, int) and name >= count]:
        raise ConfigError(f"model.max_memory names GPU {absent[0]}, and this machine has {count}; leave it out")
    architecture, dtype = architecture_of(network.config.model_type), getattr(torch, config.dtype)
    whole = sorted(
        {type(layer).__name__ for site in architecture.sites for layer in architecture.layers(network, site)}
    )
    memory = get_balanced_memory(network, limits or None, whole, dtype)
    places: Places = dict(infer_auto_device_map(network, memory, whole, dtype))
    words = word_embeddings(network)
    path = next(name for name, module in network.named_modules() if module is words)
    first = next(place for part, place in places.items() if not part or f"{path}.".startswith(f"{part}."))
    if first == "disk":
        size = size_text(words.weight.numel() * dtype.itemsize)
        raise ConfigError(
            f"model.device_map=auto finds no room for the word embeddings ({size}) beside the network's largest part; "
            "give the first device more in model.max_memory, or choose a smaller model"
        )
    trained = set(head_parameters(network))
    for part in places:
        own = {name for name, _ in network.named_parameters() if name.startswith(f"{part}.")}
        if own and own <= trained:
            places[part] = first
    return places


def dispatched(model: PreTrainedModel) -> bool:
    """Whether accelerate has spread a model over several places."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


def spread_of(model: PreTrainedModel) -> str:
    """How many bytes of a dispatched model without adapters lie where, for people."""
    sizes: Counter[str] = Counter()
    places: Any = model.hf_device_map
    for name, value in model.named_parameters():
        place = next(place for part, place in places.items() if name.startswith(f"{part}."))
        where = {"cpu": "in memory", "disk": "on disk"}.get(place, f"on GPU {place}")
        sizes[where] += value.numel() * value.element_size()
    return ", ".join(f"{size_text(size)} {where}" for where, size in sizes.items())
