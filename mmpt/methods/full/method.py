"""Full fine-tuning: every weight of the backbone is trained. Its adapter is the whole backbone."""

from __future__ import annotations

from torch import Tensor, nn

from mmpt.methods.base import Contribution, Method


class FullFineTuning(Method):
    """The backbone itself as the trainable part."""

    @property
    def changes_encoder(self) -> str:
        """See the base class."""
        return "method=full trains the encoder"

    def attach(self, backbone: nn.Module) -> None:
        """Take the backbone's parameters over, and unfreeze them."""
        self.backbone = backbone
        backbone.requires_grad_(True)

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class: nothing is added."""
        return Contribution()


METHOD = FullFineTuning
