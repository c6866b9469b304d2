"""LoRA (Hu et al. 2021), by peft: W + (α/r)·B·A in chosen linear layers, A (r, in), B (out, r), B zero at the start."""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from transformers.pytorch_utils import Conv1D

from mmpt.errors import ConfigError
from mmpt.methods.lora.options import LoRA
from mmpt.methods.peft_layers import PeftLayers, usual_targets


class LowRankAdaptation(PeftLayers):
    """Low-rank updates inside the backbone's own layers."""

    options: LoRA

    def attach(self, backbone: nn.Module, name: str = "default") -> None:
        """Let peft put its layers into the backbone, and take their parameters over.

        Raises:
            ConfigError: The rank is above the width of every layer.
            ModelError: A name of ``method.target_modules`` is that of no layer.
        """
        from peft import LoraConfig

        linear = [module for module in backbone.modules() if isinstance(module, nn.Linear | Conv1D)]
        widest = max(max(module.weight.shape) for module in linear)
        if self.options.r > widest:
            raise ConfigError(f"method.r={self.options.r} exceeds {widest}, the width of the widest layer; lower it")

        if self.options.target_modules == "auto":
            self.options = replace(self.options, target_modules=usual_targets(backbone, "lora"))
        options, targets = self.options, list(self.options.target_modules)
        config = LoraConfig(r=options.r, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=targets)  # type: ignore[arg-type]
        self.put_in(backbone, config, targets, "lora_", name)
