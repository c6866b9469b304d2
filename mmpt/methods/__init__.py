"""The methods: one file each. ``mmpt.methods.options`` names them all without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmpt.errors import ConfigError, nearest
from mmpt.methods.options import OPTIONS

if TYPE_CHECKING:
    from mmpt.methods.base import BackboneShape, Method

CLASSES: dict[str, str] = {  # the module of a method has the method's name
    "multimask": "MultiMaskPrefixTuning",
    "prefix": "PrefixTuning",
    "smop": "SparseMixtureOfPrompts",
    "prompt": "PromptTuning",
    "ptuning": "EncodedPromptTuning",
    "residual": "ResidualPromptTuning",
    "dept": "DecomposedPromptTuning",
    "lora": "LowRankAdaptation",
    "ia3": "RescaledActivations",
    "full": "FullFineTuning",
}


def build(name: str, options: Mapping[str, Any], shape: BackboneShape) -> Method:
    """Create a method for a backbone.

    Args:
        name: A key of ``OPTIONS``.
        options: Values for the method's options.
        shape: What the method must know of the backbone.

    Returns:
        The method with freshly drawn parameters (float32), from torch's global generator.

    Raises:
        ConfigError: No such method, or its options are wrong.
    """
    kind = _class(name)
    try:
        values = OPTIONS[name](**options)
    except TypeError as error:
        raise ConfigError(f"options of method={name}: {error}") from error
    if problems := values.problems():
        raise ConfigError(problems)
    return kind(values.for_architecture(shape.architecture), shape)


def lives_inside(name: str) -> bool:
    """Whether a method changes the backbone itself, so that no other adapter can use that backbone.

    Raises:
        ConfigError: No such method.
    """
    from mmpt.methods.base import Method

    return _class(name).attach is not Method.attach


def _class(name: str) -> type[Method]:
    if name not in OPTIONS:
        raise ConfigError(f"method={name} is unknown{nearest(name, OPTIONS)}; allowed: {', '.join(OPTIONS)}")
    found: type[Method] = getattr(import_module(f"mmpt.methods.{name}"), CLASSES[name])
    return found
