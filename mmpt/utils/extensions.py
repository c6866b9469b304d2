"""The user's own Python files: a method, a metric or a loss each, in folders that the user names.

``--config-dir DIR`` names DIR/method, DIR/metric and DIR/loss; so does the environment variable ``MMPT_EXTENSIONS``,
which the processes that a run starts inherit. A configuration, such as that of somebody else's run, only says a name:
no file outside these folders is ever executed for it, and no path.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Literal, get_args

from mmpt.errors import ConfigError
from mmpt.utils.untrusted import one_line

Kind = Literal["method", "metric", "loss"]
VARIABLE = "MMPT_EXTENSIONS"  # folders DIR, separated as in PATH
CONF = Path(__file__).resolve().parents[2] / "conf"
METHOD_FOLDERS = "MMPT_METHODS"  # folders of methods alone, before there was VARIABLE; still read


def add_folder(directory: Path) -> None:
    """Read extensions from a folder too, before others; child processes inherit it."""
    known = [entry for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    text = str(directory.expanduser().absolute())
    os.environ[VARIABLE] = os.pathsep.join([text, *(entry for entry in known if entry != text)])


def folders(kind: Kind) -> list[Path]:
    """The folders that are searched for a kind of extension, the first one first."""
    named = [Path(entry).expanduser() / kind for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    if kind == "method":
        named += [Path(entry).expanduser() for entry in os.environ.get(METHOD_FOLDERS, "").split(os.pathsep) if entry]
    return named


def configurations(group: str) -> dict[str, Path]:
    """The YAML files of a configuration group by name: ours, and the user's in place of ours."""
    own = [Path(entry).expanduser() for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    return {path.stem: path for folder in [CONF, *reversed(own)] for path in sorted((folder / group).glob("*.yaml"))}


def hint(kind: Kind) -> str:
    """How a message that rejects a name mentions the user's own files."""
    return f"; your own: {kind}/NAME.py below a folder DIR, with --config-dir DIR or {VARIABLE}=DIR"


def names(kind: Kind) -> list[str]:
    """The names of all extensions of a kind, sorted; no file is executed."""
    stems = {path.stem for folder in folders(kind) if folder.is_dir() for path in folder.glob("*.py")}
    return sorted(name for name in stems if _is_name(name))


def find(kind: Kind, name: object) -> Path | None:
    """The file of an extension; None where no folder has it, or where the name is not a plain identifier."""
    if not _is_name(name):
        return None
    paths = (folder / f"{name}.py" for folder in folders(kind))
    return next((path.resolve() for path in paths if path.is_file()), None)


def load(kind: Kind, name: object) -> ModuleType | None:
    """Execute the file of an extension, once per process; None where no folder has it.

    ConfigError: the file cannot be imported.
    """
    path = find(kind, name)
    return None if path is None else _execute(kind, path)


def raised(error: BaseException) -> str:
    """An error of the user's own code as one line that says where: the last place in their files, or else the last."""
    places = {folder.resolve() for kind in get_args(Kind) for folder in folders(kind)}
    frames = extract_tb(error.__traceback__)
    at = next((frame for frame in reversed(frames) if Path(frame.filename).parent in places), frames[-1])
    return f"raises {type(error).__name__}: {one_line(error)} ({Path(at.filename).name}, line {at.lineno})"


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier() and not name.startswith("_")


@cache
def _execute(kind: Kind, path: Path) -> ModuleType:
    # a name per file: dataclasses look their module up in sys.modules, also after a second file of the same stem
    name = f"mmpt_{kind}_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(
            f"{kind} file {path} cannot be imported: {type(error).__name__}: {one_line(error)}"
        ) from error
    return module
