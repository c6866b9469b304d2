"""Fingerprints of a model's own weights, by which an adapter states what it was trained on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt.models.parts import ADAPTERS, head_parameters
from mmpt.models.quantization import scales

_FOREIGN = re.compile(r"\.(lora|ia3)_")  # parameters that peft has put into layers


def weights_fingerprint(
    model: nn.Module, without: Collection[str] = (), values: Mapping[str, Tensor] | None = None
) -> str:
    """SHA-256 over names, shapes and bytes of a model's own parameters, those of adapters and ``without`` left out.

    Layers that peft has wrapped count under their own names. ``values`` are used instead of the model's, by name.
    """
    digest = hashlib.sha256()
    own = {**dict(model.named_parameters()), **scales(model)}
    given = {name.replace(".base_layer.", "."): value for name, value in own.items()}
    for name, parameter in sorted({**given, **(values or {})}.items()):
        if name in without or name.startswith(f"{ADAPTERS}.") or _FOREIGN.search(name):
            continue
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        if parameter.is_meta:  # its numbers lie in memory or on disk (model.device_map)
            module, _, last = name.rpartition(".")
            with align_module_device(owner := model.get_submodule(module)):
                parameter = getattr(owner, last)
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
