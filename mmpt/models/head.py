"""The classification head of a model: every adapter trains one of its own, and the model's comes back with the last.

The head is all that lies behind the last layer, the pooler too. It is trained in float32, whatever the model's type.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt.models.parts import head_parameters
from mmpt.utils.weak import Weak


class Head:
    """The heads that a model can have."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Remember the model's own."""
        self._model = Weak(model)  # it holds this
        self.original = {name: model.get_parameter(name) for name in head_parameters(model)}
        self.own: dict[str, dict[str, nn.Parameter]] = {}  # by adapter
        modules = {name.rpartition(".")[0] for name in self.original}
        self._hooks = [model.get_submodule(name).register_forward_pre_hook(_cast) for name in sorted(modules)]

    @property
    def model(self) -> PreTrainedModel:
        """The model that has the head."""
        return self._model()

    def new(self, adapter: str, fresh: Sequence[str] = ()) -> dict[str, nn.Parameter]:
        """Create an adapter's head from the model's own, with ``fresh`` parameters drawn anew; empty without a head."""
        drawn = _drawn(self.model, fresh)
        self.own[adapter] = {
            name: nn.Parameter(drawn.get(name, value).detach().to(value.device, torch.float32, copy=True))
            for name, value in self.original.items()
        }
        return self.own[adapter]

    def use(self, adapter: str | None) -> None:
        """Let the model use an adapter's head, or its own."""
        for name, value in (self.original if adapter is None else self.own[adapter]).items():
            module, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(module), last, value)

    def merge(self, adapter: str) -> None:
        """Copy an adapter's head into the model's own."""
        with torch.no_grad():
            for name, value in self.own[adapter].items():
                self.original[name].copy_(value)

    def remove(self) -> None:
        """Give the model its own head again."""
        self.use(None)
        for hook in self._hooks:
            hook.remove()


def _cast(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(value.to(dtype) if isinstance(value, Tensor) else value for value in args)


def _drawn(model: PreTrainedModel, names: Sequence[str]) -> dict[str, Tensor]:
    """Values for parameters of a head as the model draws them, from torch's global generator."""
    if not names:
        return {}
    config = deepcopy(model.config)  # of a network as small as its head allows
    config.vocab_size, config.intermediate_size = (config.pad_token_id or 0) + 1, 1
    return {name: value for name, value in type(model)(config).named_parameters() if name in names}
