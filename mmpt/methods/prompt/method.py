"""Prompt tuning (Lester et al. 2021): P (S, d) before the encoder's input embeddings, the same for all inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.methods.base import BackboneShape, Contribution, Method, StartingValues, start_prompt
from mmpt.methods.options import HEAD, Start
from mmpt.methods.prompt.options import Prompt


class PromptTuning(Method):
    """One soft prompt at the encoder's input."""

    options: Any

    def __init__(self, options: Start, shape: BackboneShape, routes: int = 1) -> None:
        """Create the prompt, or that of R routes (R·S, d)."""
        super().__init__(options, shape)
        values = options.spread * torch.randn(routes * options.num_virtual_tokens, shape.width)
        self.prompts = nn.ParameterDict({"input": nn.Parameter(values)})

    def initialise(self, backbone: StartingValues) -> None:
        """See the base class."""
        start_prompt(self.prompts["input"], self.options, backbone)

    def prompt(self) -> Tensor:
        """The prompt (S, d)."""
        return self.prompts["input"]

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class."""
        return Contribution(prompt=self.prompt().unsqueeze(0))


class ReparametrizedPrompt(PromptTuning):
    """P = f(E): a table E (S, d), and a network f that only training has; the adapter holds P alone."""

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
