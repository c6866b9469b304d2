"""Full fine-tuning: every weight of the backbone is trained, or all weights of its last layers.

The adapter holds what is trained, so by default the whole backbone.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmpt.errors import ConfigError
from mmpt.methods.backbone_layers import constant_below, in_last_layers
from mmpt.methods.base import Contribution, Method


class FullFineTuning(Method):
    """The backbone itself as the trainable part."""

    NEEDS_EVERY_GRADIENT = False  # some networks have weights that a task does not use

    def attach(self, backbone: nn.Module, name: str = "default") -> None:
        """Take the backbone's parameters over, in float32, which small updates need."""
        backbone.float()
        trained = in_last_layers(backbone, self.options, (name for name, _ in backbone.named_parameters()))
        self.borrow({f"backbone.{name}": backbone.get_parameter(name) for name in trained})
        self.constant = constant_below(backbone, trained)

    def detach(self, backbone: nn.Module) -> None:
        """Refuse, by a ConfigError."""
        raise ConfigError(
            "method=full has changed the backbone's own weights, which are not kept twice; keep them with "
            "mmpt.merge_adapter(model), or load the model anew"
        )

    def activate(self, on: bool) -> None:
        """Refuse to rest; errors are those of :meth:`detach`."""
        if not on:
            raise ConfigError("method=full is the backbone itself, which cannot be switched off; load the model anew")

    def merge(self, backbone: nn.Module) -> None:
        """See the base class: the weights are the backbone's already."""

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class: nothing is added."""
        return Contribution()
