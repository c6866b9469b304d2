"""Methods that live inside the backbone's own linear layers: peft puts its layers there, we train their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mmpt.attention.architectures import architecture_of
from mmpt.errors import ModelError
from mmpt.methods.base import Contribution, Method

TASK_TYPES = {"seq2seq": "SEQ_2_SEQ_LM", "causal": "CAUSAL_LM", "encoder": "SEQ_CLS"}  # peft's word for a kind of model
Usual = Literal["lora", "ia3", "feedforward"]


def usual_targets(backbone: nn.Module, what: Usual) -> list[str]:
    """What ``auto`` means for a backbone: peft's own choice for its architecture, ours where peft has none.

    Args:
        backbone: A transformers model.
        what: ``lora``, ``ia3``, or ``feedforward``, those of ``ia3`` whose input is rescaled.
    """
    from peft.utils import constants

    config: Any = backbone.config
    architecture = architecture_of(config.model_type)
    if architecture.peft is None:
        return list(architecture.targets[what])
    tables: dict[str, Any] = {
        "lora": constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
        "ia3": constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
        "feedforward": constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    }
    return list(tables[what][architecture.peft])


class PeftLayers(Method):
    """A method of peft's: its layers do the work, and its file format is written beside our own."""

    def put_in(self, backbone: nn.Module, config: Any, targets: Sequence[str], part: str) -> nn.ParameterDict:
        """Let peft wrap layers of the backbone, and take their parameters over.

        Args:
            backbone: Is changed.
            config: peft's configuration of the method, with these targets.
            targets: Names of linear layers or the ends of them (``q``, ``SelfAttention.q``): ``method.target_modules``.
            part: What the names of peft's parameters have in common.

        Returns:
            The new parameters, by their names with ``/`` for ``.``.

        Raises:
            ModelError: A name is that of no layer.
        """
        from peft import inject_adapter_in_model

        linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear | Conv1D)]
        if absent := [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in linear)]:
            layers = {name.rsplit(".", 1)[-1] for name in linear}
            raise ModelError(
                f"method.target_modules={list(targets)}: {absent[0]} names no layer of the backbone; its linear layers "
                f"are {', '.join(sorted(layers))}"
            )
        trained = [name for name in linear if backbone.get_parameter(f"{name}.weight").requires_grad]
        config.exclude_modules = trained or None  # a classification head is trained as it is
        config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in backbone.modules())  # GPT-2's layers
        inject_adapter_in_model(config, backbone)
        model_config: Any = backbone.config
        config.task_type = TASK_TYPES[architecture_of(model_config.model_type).kind]
        config.modules_to_save = self._head_modules(str(backbone.base_model_prefix)) or None
        self._config = config
        wrapped = {name: value for name, value in backbone.named_parameters() if part in name}
        return nn.ParameterDict({name.replace(".", "/"): value for name, value in wrapped.items()})

    def _head_modules(self, base: str) -> list[str]:
        """Modules of a classification head: classifier and bert.pooler, say, where the base model is bert. Or none."""
        paths = [name.split("/") for name in self.head] if self.has_head else []
        return sorted({".".join(path[:2] if path[0] == base else path[:1]) for path in paths})

    def forward(self, mean: Tensor | None) -> Contribution:
        """See the base class: nothing is added, the backbone's layers hold what is trained."""
        return Contribution()

    def in_peft(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """See the base class."""
        values = {
            key: sorted(value) if isinstance(value, set) else value for key, value in self._config.to_dict().items()
        }
        _, state = self.folded()
        tensors = {
            "base_model.model." + name.partition(".")[2].replace("/", ".").replace(".default", ""): value
            for name, value in state.items()
        }
        return {**values, "inference_mode": True}, tensors
