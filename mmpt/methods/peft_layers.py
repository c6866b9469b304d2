"""Methods that live inside the backbone's own linear layers: peft puts its layers there, we train their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmpt.errors import ModelError


def put_in(backbone: nn.Module, config: Any, targets: Sequence[str], part: str) -> nn.ParameterDict:
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

    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    if absent := [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in linear)]:
        layers = {name.rsplit(".", 1)[-1] for name in linear}
        raise ModelError(
            f"method.target_modules={list(targets)}: {absent[0]} names no layer of the backbone; its linear layers are "
            f"{', '.join(sorted(layers))}"
        )
    inject_adapter_in_model(config, backbone)
    found = {name: value for name, value in backbone.named_parameters() if part in name}
    return nn.ParameterDict({name.replace(".", "/"): value for name, value in found.items()})
