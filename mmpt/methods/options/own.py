"""Methods of the user's own: one Python file each, in a folder that the user names, never one that a setting names.

The folders are those of ``--config-dir DIR`` (DIR/method, where their YAML lies too) and of the environment variable
``MMPT_METHODS``. A configuration, such as that of somebody else's run, only says a method's name; no file outside of
those folders is ever executed for it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, is_dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from mmpt.errors import ConfigError
from mmpt.methods.options.common import MethodOptions

FOLDERS = "MMPT_METHODS"  # folders, separated as those of PATH; processes that a run starts inherit it
OWN = f"; one of your own is NAME.py in DIR/method with --config-dir DIR, or in a folder of {FOLDERS}"


@dataclass(frozen=True)
class OwnMethod:
    """What a file defines: ``OPTIONS``, a dataclass of its options, and ``METHOD``, the class of the method."""

    options: type[MethodOptions]
    method: Any
    path: Path


def add_folder(folder: Path) -> None:
    """Let methods be read from a folder, before those already named."""
    known = [entry for entry in os.environ.get(FOLDERS, "").split(os.pathsep) if entry]
    if str(folder) not in known:
        os.environ[FOLDERS] = os.pathsep.join([str(folder), *known])


def find_own(name: object) -> OwnMethod | None:
    """The user's method of a name; None where no folder has it.

    Raises:
        ConfigError: Its file can't be imported, or lacks ``OPTIONS`` or ``METHOD``.
    """
    if not isinstance(name, str) or not name.isidentifier():
        return None
    for folder in os.environ.get(FOLDERS, "").split(os.pathsep):
        path = Path(folder).expanduser() / f"{name}.py"
        if folder and path.is_file():
            return _load(path.resolve())
    return None


@cache
def _load(path: Path) -> OwnMethod:
    word = f"mmpt_own_{path.stem}"
    spec = spec_from_file_location(word, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[word] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[word]
        raise ConfigError(f"method file {path} can't be imported: {type(error).__name__}: {error}") from error
    options, method = getattr(module, "OPTIONS", None), getattr(module, "METHOD", None)
    if not (isinstance(options, type) and issubclass(options, MethodOptions) and is_dataclass(options)):
        raise ConfigError(f"method file {path} must set OPTIONS to its options, a dataclass based on MethodOptions")
    from mmpt.methods.base import Method  # torch is loaded by now: the file needs it

    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ConfigError(f"method file {path} must set METHOD to its class, based on mmpt.methods.base.Method")
    return OwnMethod(options, method, path)
