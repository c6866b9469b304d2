"""Soft prompts that come out of a small network while training; the adapter holds the prompt alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.methods.base import BackboneShape
from mmpt.methods.options import HEAD
from mmpt.methods.prompt.method import PromptTuning
from mmpt.methods.prompt.options import Prompt


class ReparametrizedPrompt(PromptTuning):
    """P = f(E): a table E (S, d), and a network f that ``reparametrization=none`` leaves out."""

    options: Any

    def __init__(self, options: Prompt, shape: BackboneShape) -> None:
        """Create the table and the network."""
        super().__init__(options, shape)
        if self.options.reparametrization != "none":
            self.reparametrization = self.network()

    def network(self) -> nn.Module:
        """Create f, which takes (S, d) and gives (S, d)."""
        raise NotImplementedError

    def prompt(self) -> Tensor:
        """See the base class."""
        table = super().prompt()
        if self.options.reparametrization == "none":
            return table
        output: Tensor = self.reparametrization(table)
        return output

    def folded(self) -> tuple[Prompt, dict[str, Tensor]]:
        """See the base class: the network's output is saved, not its weights."""
        _, state = super().folded()
        state = {name: tensor for name, tensor in state.items() if name.split(".")[0] == HEAD}
        with torch.no_grad():
            state["prompts.input"] = self.prompt().detach()
        return replace(self.options, reparametrization="none"), state
