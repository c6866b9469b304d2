"""(IA)³ (Liu et al. 2022, arXiv 2205.05638), by peft: learnt vectors that rescale activations, all one at the start.

Keys of every attention are l_k ⊙ K and values l_v ⊙ V, l_k and l_v (H·k,); in every feed-forward layer, what enters the
last projection is l_ff ⊙ γ(W1·x), l_ff (d_ff,). Only these vectors are trained.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from mmpt.methods.ia3.options import IA3
from mmpt.methods.peft_layers import PeftLayers, usual_targets


class RescaledActivations(PeftLayers):
    """Vectors inside the backbone's own layers."""

    options: IA3

    def attach(self, backbone: nn.Module, name: str = "default") -> None:
        """Let peft put its layers into the backbone, and take their parameters over.

        Raises:
            ModelError: A name of ``method.target_modules`` is that of no layer.
        """
        from peft import IA3Config

        options = self.options
        targets = usual_targets(backbone, "ia3") if options.target_modules == "auto" else list(options.target_modules)
        rescaled = options.feedforward_modules
        if rescaled == "auto":
            rescaled = [name for name in usual_targets(backbone, "feedforward") if name in targets]
        self.options = replace(options, target_modules=targets, feedforward_modules=list(rescaled))
        config = IA3Config(target_modules=targets, feedforward_modules=list(rescaled))
        self.put_in(backbone, config, targets, "ia3_", name)
