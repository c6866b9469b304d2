"""P-tuning (Liu et al. 2021, arXiv 2103.10385): a soft prompt from a network over a table of embeddings.

P = f(E), E (S, d), before the encoder's input embeddings, the same for all inputs. With h the network's width:

- ``reparametrization=lstm``: f(E) = W2·relu(W1·LSTM(E)), the LSTM bidirectional with two layers and h/2 units in each
  direction, W1 (h, h), W2 (d, h).
- ``reparametrization=mlp``: f(E) = W3·relu(W2·relu(W1·E)), W1 (h, d), W2 (h, h), W3 (d, h), as in peft.

Linear layers have biases, and only P is saved with the adapter. LSTM and h = d are those of the published code (its
LAMA part). There the learning rate is 1e-5, and the tokens stand around and between subject and object of a relation;
here they all stand before the text.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmpt.methods.prompt.method import ReparametrizedPrompt
from mmpt.methods.ptuning.options import PTuning


class LSTMEncoder(nn.Module):
    """A bidirectional LSTM over the prompt's tokens, and two linear layers."""

    def __init__(self, width: int, hidden: int) -> None:
        """Create it for embeddings of a width, with an even hidden width."""
        super().__init__()
        self.lstm = nn.LSTM(width, hidden // 2, num_layers=2, bidirectional=True)
        self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, table: Tensor) -> Tensor:
        """(S, d) to (S, d)."""
        output: Tensor = self.mlp(self.lstm(table)[0])
        return output


class EncodedPromptTuning(ReparametrizedPrompt):
    """One encoded soft prompt at the encoder's input."""

    options: PTuning

    def network(self) -> nn.Module:
        """See the base class."""
        width, hidden = self.shape.width, self.options.reparametrization_hidden or self.shape.width
        if self.options.reparametrization == "lstm":
            return LSTMEncoder(width, hidden)
        layers = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width)]
        return nn.Sequential(*layers)
