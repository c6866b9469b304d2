"""LoRA (Hu et al. 2021), by peft: W + (α/r)·B·A in chosen linear layers, A (r, in), B (out, r), B zero at the start."""

from __future__ import annotations

from torch import Tensor, nn

from mmpt.errors import ModelError
from mmpt.methods.base import Contribution, Method
from mmpt.methods.options import LoRA


class LowRankAdaptation(Method):
    """Low-rank updates inside the backbone's own layers."""

    options: LoRA

    @property
    def changes_encoder(self) -> str:
        """See the base class."""
        return "method=lora changes the encoder's layers"

    def attach(self, backbone: nn.Module) -> None:
        """Let peft put its layers into the backbone, and take their parameters over.

        Raises:
            ModelError: No layer has a name of ``method.target_modules``.
        """
        from peft import LoraConfig, inject_adapter_in_model

        options = self.options
        targets = list(options.target_modules)
        config = LoraConfig(r=options.r, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=targets)  # type: ignore[arg-type]
        try:
            inject_adapter_in_model(config, backbone)
        except ValueError as error:
            raise ModelError(
                f"method.target_modules={targets} names no layer of the backbone; T5 has q, k, v, o"
            ) from error
        found = {name: value for name, value in backbone.named_parameters() if ".lora_" in name}
        self.lora = nn.ParameterDict({name.replace(".", "/"): value for name, value in found.items()})

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class: nothing is added, the backbone's layers hold the update."""
        return Contribution()
