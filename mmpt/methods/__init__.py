"""The methods: one file each. ``mmpt.methods.options`` names them all without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmpt.config.typed_build import Problems
from mmpt.config.typed_build import build as build_options
from mmpt.errors import ConfigError, nearest
from mmpt.methods.options import OPTIONS, options_of
from mmpt.methods.options.own import OWN, find_own

if TYPE_CHECKING:
    from mmpt.methods.base import BackboneShape, Method
    from mmpt.methods.options import MethodOptions

CLASSES: dict[str, str] = {  # the module of a method has the method's name
    "multimask": "MultiMaskPrefixTuning",
    "prefix": "PrefixTuning",
    "apt": "AdaptivePrefixTuning",
    "smop": "SparseMixtureOfPrompts",
    "mept": "MixtureOfExpertPrompts",
    "prompt": "PromptTuning",
    "ptuning": "EncodedPromptTuning",
    "residual": "ResidualPromptTuning",
    "dept": "DecomposedPromptTuning",
    "lora": "LowRankAdaptation",
    "ia3": "RescaledActivations",
    "full": "FullFineTuning",
}


def build(name: str, options: Mapping[str, Any], shape: BackboneShape, most: int | None = None) -> Method:
    """Create a method for a backbone.

    Args:
        name: A key of ``OPTIONS``, or the name of a method of the user's own.
        options: Values for the method's options.
        shape: What the method must know of the backbone.
        most: Numbers that its parameters may have; by default, what memory holds.

    Returns:
        The method with freshly drawn parameters (float32), from torch's global generator.

    Raises:
        ConfigError: No such method, or its options are wrong, or ask for too much.
    """
    from mmpt.models.size import refuse_parameters

    values, kind = checked(name, options).for_architecture(shape.architecture), class_of(name)
    if name in OPTIONS:  # one of the user's own may need real tensors
        refuse_parameters(lambda: kind(values, shape), name, most)
    return kind(values, shape)


def checked(name: str, options: Mapping[str, Any]) -> MethodOptions:
    """The options of a method, of the right types and possible together.

    Raises:
        ConfigError: No such method, or the first option that is wrong.
    """
    problems = Problems()
    values = build_options(_options(name), options, "method", problems)
    if found := [text for _, text in problems.found] or values.problems():
        raise ConfigError(found)
    return values


def lives_inside(name: str) -> bool:
    """Whether a method changes the backbone itself, so that no other adapter can use that backbone.

    Raises:
        ConfigError: No such method.
    """
    from mmpt.methods.base import Method

    _options(name)
    return class_of(name).attach is not Method.attach


def class_of(name: str) -> type[Method]:
    """The class of a method whose options :func:`mmpt.methods.options.options_of` has found."""
    own = None if name in OPTIONS else find_own(name)
    found: type[Method] = getattr(import_module(f"mmpt.methods.{name}"), CLASSES[name]) if own is None else own.method
    return found


def _options(name: str) -> type[MethodOptions]:
    kind = options_of(name)
    if kind is None:
        raise ConfigError(f"method={name} is unknown{nearest(name, OPTIONS)}; allowed: {', '.join(OPTIONS)}{OWN}")
    return kind
