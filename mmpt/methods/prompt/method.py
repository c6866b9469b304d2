"""Prompt tuning (Lester et al. 2021): P (S, d) before the encoder's input embeddings, the same for all inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpt.methods.base import BackboneShape, Contribution, Method, StartingValues, start_prompt
from mmpt.methods.prompt.options import Prompt


class PromptTuning(Method):
    """One soft prompt at the encoder's input."""

    options: Prompt

    def __init__(self, options: Prompt, shape: BackboneShape) -> None:
        """Create the prompt."""
        super().__init__(options, shape)
        values = options.spread * torch.randn(options.num_virtual_tokens, shape.width)
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


METHOD = PromptTuning
