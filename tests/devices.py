"""A second device on a machine that has none: torch's ``meta``. Numbers can go there, and zeros come back.

What is computed there means nothing. That every tensor is where its partners are is checked at each operation.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from mmpt.attention.architectures import architecture_of

HERE, THERE = torch.device("cpu"), torch.device("meta")
BEHIND = ("final_layer_norm", "norm", "ln_f", "rotary_emb")  # what follows the last layer, by name


class Strict(TorchDispatchMode):
    """Refuses operations on tensors of two devices, as GPUs do; indices in host memory they accept."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        devices = {leaf.device for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 0}
        assert len(devices) < 2 or "copy" in str(func) or "aten.index" in str(func), f"{func} of tensors on two devices"
        if func is torch.ops.aten._to_copy.default and args[0].device == THERE and kwargs.get("device") == HERE:
            return torch.zeros_like(args[0], dtype=kwargs.get("dtype"), device=HERE)
        return func(*args, **(kwargs or {}))


class _Follow(ModelHook):
    """As accelerate's own hook of a module that lies on a device."""

    def __init__(self, device: torch.device, home: torch.device | None = None) -> None:
        self.device, self.home = device, home

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return send_to_device(args, self.device), send_to_device(kwargs, self.device)

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        return output if self.home is None else send_to_device(output, self.home)


def spread(model: PreTrainedModel, here: torch.device = HERE, there: torch.device = THERE) -> None:
    """Put all layers but the first of each stack, and what follows them, on a second device, as accelerate does."""
    model.to(here)
    architecture = architecture_of(model.config.model_type)
    layers = {id(layer): layer for site in architecture.sites for layer in architecture.layers(model, site)}
    firsts = {id(architecture.layers(model, site)[0]) for site in architecture.sites}
    inside = {id(part) for layer in layers.values() for part in layer.modules()}
    behind = [part for name, part in model.named_modules() if name.endswith(BEHIND) and id(part) not in inside]
    moved = [*(layer for key, layer in layers.items() if key not in firsts), *behind]
    away = {id(part) for each in moved for part in each.to(there).modules()}
    for part in model.modules():
        stack = id(part) not in inside and any(id(inner) in inside for inner in part.modules())  # lies nowhere itself
        if not stack and (id(part) in away or any(True for _ in part.parameters())):
            add_hook_to_module(part, _Follow(there if id(part) in away else here))
    add_hook_to_module(model, _Follow(here, here))
    model.hf_device_map = {"first": here, "others": there}  # type: ignore[assignment]
