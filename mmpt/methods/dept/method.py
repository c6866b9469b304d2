"""DePT, decomposed prompt tuning (Shi & Lipani 2023, arXiv 2309.05173): a short prompt and a low-rank update.

The encoder's input is [P ; E + α/√r·(A·B)] with the prompt P (S, d), the source's word embeddings E (T, d), A (M, r),
B (r, d): row t of A·B is added to token t, the same for all inputs. Tokens from M on stay as they are. P and (A, B) are
two groups with learning rates of their own.

A is drawn from U(-1/√r, 1/√r) and B is zero, so that training starts from plain prompt tuning. The scale, S = 40,
r = 45, M = 256 and the rates (prompt 0.3 or 0.4, A and B out of 0.3, 0.005 and 0.0005, tuned for each task) are those
of the published code, which starts P from the words of a sentence; they were not compared with the text of the paper.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from mmpt.methods.base import BackboneShape, Contribution
from mmpt.methods.dept.options import DePT
from mmpt.methods.prompt.method import PromptTuning


class DecomposedPromptTuning(PromptTuning):
    """A soft prompt and a low-rank update of the embeddings after it."""

    options: DePT

    def __init__(self, options: DePT, shape: BackboneShape) -> None:
        """Create the prompt, A and B."""
        super().__init__(options, shape)
        rows = (2 * torch.rand(options.max_length, options.r) - 1) / sqrt(options.r)
        columns = torch.zeros(options.r, shape.width)
        self.low_rank = nn.ParameterDict({"A": nn.Parameter(rows), "B": nn.Parameter(columns)})

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class."""
        scale = self.options.alpha / sqrt(self.options.r)
        update = scale * (self.low_rank["A"] @ self.low_rank["B"])
        return Contribution(prompt=self.prompt().unsqueeze(0), embedding_update=update)
