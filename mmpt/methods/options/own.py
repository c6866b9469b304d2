"""Methods of the user's own: ``method/NAME.py`` in a folder that the user names (:mod:`mmpt.utils.extensions`)."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from mmpt.errors import ConfigError
from mmpt.methods.options.common import MethodOptions
from mmpt.utils import extensions

OWN = extensions.hint("method")


@dataclass(frozen=True)
class OwnMethod:
    """What a file defines: ``OPTIONS``, a dataclass of its options, and ``METHOD``, the class of the method."""

    options: type[MethodOptions]
    method: Any
    path: Path


def find_own(name: object) -> OwnMethod | None:
    """The user's method of a name; None where no folder has it.

    Raises:
        ConfigError: Its file cannot be imported, or lacks ``OPTIONS`` or ``METHOD``.
    """
    path, module = extensions.find("method", name), extensions.load("method", name)
    if path is None or module is None:
        return None
    options, method = getattr(module, "OPTIONS", None), getattr(module, "METHOD", None)
    if not (isinstance(options, type) and issubclass(options, MethodOptions) and is_dataclass(options)):
        raise ConfigError(f"method file {path} must set OPTIONS to its options, a dataclass based on MethodOptions")
    from mmpt.methods.base import Method  # torch is loaded by now: the file needs it

    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ConfigError(f"method file {path} must set METHOD to its class, based on mmpt.methods.base.Method")
    return OwnMethod(options, method, path)
