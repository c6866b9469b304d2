"""Residual Prompt Tuning (Razdaibiedina et al. 2023, arXiv 2305.03937): a soft prompt plus a network over it.

P' = P + LayerNorm(W2·relu(W1·P)), P (S, d), W1 (h, d), W2 (d, h), both with biases, the same network for every token.
``layer_norm=false`` leaves LayerNorm out. Only P' is saved with the adapter.

Equation and defaults are those of the published code (h = 800, LayerNorm on, one learning rate of 0.3, P from sampled
vocabulary, S = 10); they were not compared with the text of the paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmpt.methods.prompt.method import ReparametrizedPrompt
from mmpt.methods.residual.options import Residual


class ResidualMLP(nn.Module):
    """An MLP with a bottleneck, added to its input."""

    def __init__(self, width: int, hidden: int, layer_norm: bool) -> None:
        """Create W1 (width → hidden), W2 (hidden → width), and the norm where asked."""
        super().__init__()
        norm = [nn.LayerNorm(width)] if layer_norm else []
        self.module = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), *norm)

    def forward(self, table: Tensor) -> Tensor:
        """(S, d) to (S, d)."""
        output: Tensor = table + self.module(table)
        return output


class ResidualPromptTuning(ReparametrizedPrompt):
    """One residual soft prompt at the encoder's input."""

    options: Residual

    def network(self) -> nn.Module:
        """See the base class."""
        return ResidualMLP(self.shape.width, self.options.reparametrization_hidden, self.options.layer_norm)
