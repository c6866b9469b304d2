"""The methods, a folder each: ``NAME/options.py`` defines its options, and ``NAME/method.py`` its class.

A folder is registered by being here. A method of the user's own is one file that sets ``OPTIONS`` and ``METHOD``
(:mod:`mmpt.utils.extensions`). Torch is imported only where a method is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, TypeVar

from mmpt.config.typed_build import fields_of, shown, unknown
from mmpt.errors import ConfigError, nearest
from mmpt.methods.options import MethodOptions
from mmpt.utils import extensions
from mmpt.utils.machine import GB, memory_bytes
from mmpt.utils.untrusted import one_line

if TYPE_CHECKING:
    from mmpt.methods.base import BackboneShape, Method


Kind = TypeVar("Kind")


@cache
def names() -> tuple[str, ...]:
    """The methods of this package, sorted."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if module.ispkg))


def options_class(name: object) -> type[MethodOptions]:
    """The options of a method, one of the user's own too; ConfigError where there is none, or its file is wrong."""
    if isinstance(name, str) and name in names():
        return _defined(f"mmpt.methods.{name}.options", MethodOptions)
    if (own := _own(name)) is None:
        text = f"method.name={shown(name)} is unknown; allowed: {', '.join(names())}{extensions.hint('method')}"
        raise ConfigError(text + nearest(name, names()))
    return own[0]


def method_class(name: str) -> type[Method]:
    """The class of a method, which needs torch; errors are those of :func:`options_class`."""
    from mmpt.methods.base import Method

    options_class(name)
    own = None if name in names() else _own(name)
    return _defined(f"mmpt.methods.{name}.method", Method) if own is None else own[1]


def source_file(name: str) -> Path | None:
    """The file of a method of the user's own; None for methods of this package."""
    return None if name in names() else extensions.find("method", name)


def parse(name: object, values: Mapping[str, Any]) -> MethodOptions:
    """Options of a method from plain data, such as YAML or JSON; those that are left out have their defaults.

    Raises:
        ConfigError: With all problems: no such method, unknown names, wrong types, impossible values or combinations.
    """
    kind = options_class(name)
    known = fields_of(kind)
    lines = [unknown(f"method.{key}", str(key), ["lr", *known]) for key in values if key not in known]
    required = [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]
    lines += [f"method.{key} is missing; add method.{key}=..." for key in required if key not in values]
    if lines and required:
        raise ConfigError(lines)
    try:
        options = kind(**{key: value for key, value in values.items() if key in known})
    except ConfigError as error:
        raise ConfigError([*lines, *error.problems]) from error
    if lines:
        raise ConfigError(lines)
    return options


def create(options: MethodOptions, shape: BackboneShape, most: int | None = None) -> Method:
    """Create a method for a backbone, with freshly drawn parameters (float32), from torch's global generator.

    ``most`` is how many numbers they may have; by default, what memory holds.

    Raises:
        ConfigError: The options do not suit the backbone, or ask for too much.
    """
    options, kind = options.for_architecture(shape.architecture), method_class(options.name)
    if options.name in names():  # one of the user's own may need real tensors
        _refuse_parameters(kind, options, shape, most)
    return kind(options, shape)


def _refuse_parameters(kind: type[Method], options: MethodOptions, shape: BackboneShape, most: int | None) -> None:
    """Reject a method that is too large, before any of it is allocated: docs/security.md."""
    import torch

    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in kind(options, shape).parameters())
    except (RuntimeError, OverflowError, TypeError, MemoryError) as error:  # torch counts up to 2**63
        raise ConfigError(f"options of method={options.name} make no parameters ({one_line(error)[:200]})") from error
    if most is not None and count > most:
        raise ConfigError(f"options of method={options.name} describe {count:,} numbers, but only {most:,} are there")
    if 4 * count > memory_bytes():
        raise ConfigError(
            f"options of method={options.name} make {count:,} parameters, {4 * count / GB:.0f} GB in float32, and "
            f"there are {memory_bytes() / GB:.0f} GB of memory; choose fewer or shorter prefixes, prompts, or routes"
        )


def _defined(module: str, base: type[Kind]) -> type[Kind]:
    """The class based on another that a module defines."""
    kinds = [kind for kind in vars(import_module(module)).values() if isinstance(kind, type)]
    return next(kind for kind in kinds if issubclass(kind, base) and kind.__module__ == module)


def _own(name: object) -> tuple[type[MethodOptions], type[Method]] | None:
    """What the user's file of a name sets as ``OPTIONS`` and ``METHOD``; None where no folder has it."""
    module = extensions.load("method", name)
    if module is None:
        return None
    where = f"method file {module.__file__}"
    options, method = getattr(module, "OPTIONS", None), getattr(module, "METHOD", None)
    if not (isinstance(options, type) and issubclass(options, MethodOptions) and is_dataclass(options)):
        raise ConfigError(f"{where} must set OPTIONS to its options, a dataclass based on MethodOptions")
    from mmpt.methods.base import Method  # torch is loaded by now: the file needs it

    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ConfigError(f"{where} must set METHOD to its class, based on mmpt.methods.base.Method")
    if not options.name:
        options.name = str(name)
    if options.name != name:
        raise ConfigError(f'{where}: its options have name = "{options.name}"; set name: ClassVar[str] = "{name}"')
    return options, method
