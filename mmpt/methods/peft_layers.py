"""Methods that live inside the backbone's own linear layers: peft puts its layers there, we train their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mmpt.attention.architectures import architecture_of
from mmpt.errors import ConfigError, ModelError
from mmpt.methods.backbone_layers import constant_below, in_last_layers
from mmpt.methods.base import Contribution, Method

TASK_TYPES = {"seq2seq": "SEQ_2_SEQ_LM", "causal": "CAUSAL_LM", "encoder": "SEQ_CLS"}  # peft's word for a kind of model


def _wrapped(backbone: nn.Module) -> list[tuple[str, Any]]:
    """The layers that peft has wrapped, by path."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(path, module) for path, module in backbone.named_modules() if isinstance(module, BaseTunerLayer)]


def _adapters(layer: Any) -> set[str]:
    """Names of the adapters that a wrapped layer has."""
    return {name for part in layer.adapter_layer_names for name in getattr(layer, part)}


def _saved_name(path: str, part: str, name: str) -> str | None:
    """How a parameter of an adapter is saved, whatever the adapter's name; None where it is not the adapter's."""
    parts = path.split(".")
    at = next((index for index, word in enumerate(parts) if word.startswith(part)), len(parts))
    return None if parts[at + 1 : at + 2] != [name] else "/".join([*parts[: at + 1], "default", *parts[at + 2 :]])


def _linear_layers(backbone: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of the backbone's own linear layers, by path; a wrapped one has the path that it had before."""
    wrapped = dict(_wrapped(backbone))
    found = {path: layer.get_base_layer().weight for path, layer in wrapped.items()}
    for path, module in backbone.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and not any(path.startswith(f"{other}.") for other in wrapped):
            found[path] = module.weight
    return found


def usual_targets(backbone: nn.Module, what: Literal["lora", "ia3", "feedforward"]) -> list[str]:
    """What ``auto`` means for a backbone: peft's own choice for its architecture, ours where peft has none."""
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

    _layers: Sequence[Any] = ()  # those that peft has wrapped

    def put_in(self, backbone: nn.Module, config: Any, targets: Sequence[str], part: str, name: str) -> None:
        """Let peft wrap the layers ``targets`` of the backbone for the adapter ``name``, and borrow their parameters.

        ``config`` is peft's, ``part`` what the names of its modules begin with. ModelError: a target is no layer.
        """
        from peft import inject_adapter_in_model

        linear = _linear_layers(backbone)
        if absent := [target for target in targets if not any(f".{path}".endswith(f".{target}") for path in linear)]:
            layers = {path.rsplit(".", 1)[-1] for path in linear}
            raise ModelError(
                f"method.target_modules={list(targets)}: {absent[0]} names no layer of the backbone; its linear layers "
                f"are {', '.join(sorted(layers))}"
            )
        trained = [path for path, weight in linear.items() if weight.requires_grad]
        chosen = in_last_layers(backbone, self.options, linear)
        ends = tuple(f".{target}" for target in targets)
        chosen = [path for path in chosen if f".{path}".endswith(ends) and path not in trained]
        if self.options.layers != "all":
            if not chosen:
                raise ModelError(
                    f"method.target_modules={list(targets)}: none is in method.layers={self.options.layers}; set "
                    "method.layers=all"
                )
            config.target_modules = set(chosen)
        config.exclude_modules = trained or None  # a classification head is trained as it is
        config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in backbone.modules())  # GPT-2's layers
        self.constant = constant_below(backbone, chosen)
        inject_adapter_in_model(config, backbone, adapter_name=name)
        backbone.__dict__.pop("peft_config", None)  # peft leaves its configuration there
        model_config: Any = backbone.config
        config.task_type = TASK_TYPES[architecture_of(model_config.model_type).kind]
        config.modules_to_save = self._head_modules(str(backbone.base_model_prefix)) or None
        self._config, self._name = config, name
        self._layers = [layer for _, layer in _wrapped(backbone) if name in _adapters(layer)]
        found = [(_saved_name(path, part, name), value) for path, value in backbone.named_parameters()]
        for value in (value for saved, value in found if saved is not None):
            value.data = value.data.float()  # peft creates it in the layer's own type
        self.borrow({f"{self.options.name}.{saved}": value for saved, value in found if saved is not None})

    def detach(self, backbone: nn.Module) -> None:
        """See the base class."""
        for path, layer in _wrapped(backbone):
            if _adapters(layer) == {self._name}:
                parent, _, last = path.rpartition(".")
                setattr(backbone.get_submodule(parent), last, layer.get_base_layer())
            elif self._name in _adapters(layer):
                layer.delete_adapter(self._name)

    def activate(self, on: bool) -> None:
        """See the base class."""
        for layer in self._layers:
            if on:
                layer.set_adapter(self._name)
            layer.enable_adapters(on)

    def merge(self, backbone: nn.Module) -> None:
        """See the base class."""
        if getattr(backbone, "hf_quantizer", None) is not None:
            raise ConfigError(
                f"method={self.options.name} cannot be merged into quantised weights, which would be rounded again; "
                "load the model without quantization"
            )
        for layer in self._layers:
            layer.merge(adapter_names=[self._name])
        self.detach(backbone)

    def train(self, mode: bool = True) -> Self:
        """See the base class; the dropout of its layers too, which lie in a network that may be in evaluation mode."""
        super().train(mode)
        for layer in self._layers:
            for dropout in getattr(layer, "lora_dropout", {}).values():
                dropout.train(mode)
        return self

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
