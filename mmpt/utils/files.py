"""Files of a run directory: written wholly or not at all, and errors in one line. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpt.errors import RunError
from mmpt.utils.untrusted import parse_json, read_lines, read_text


def cache_directory() -> Path:
    """``$MMPT_CACHE``, else ``$XDG_CACHE_HOME/mmpt``, else ``~/.cache/mmpt``."""
    if chosen := os.environ.get("MMPT_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache")).expanduser() / "mmpt"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError within the block into a RunError of one line that names the path."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free space or permissions there, or name another folder "
            "with run.dir=DIR or run.root=DIR"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file wholly or not at all, with its directory; a RunError where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.unlink(missing_ok=True)  # whatever lies there: a link would be followed
            with temporary.open("xb") as file:
                file.write(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; see :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON; see :func:`write_bytes`."""
    write_text(path, dumps(content, indent=2) + "\n")


def link_outside(directory: Path) -> Path | None:
    """Find a symbolic link below a directory that leads out of it: writing through it would change files elsewhere.

    Links in its folder ``wandb`` do not count: W&B places one to a log of its own there.
    """
    root = os.path.realpath(directory)  # the directory may itself be reached by a link
    for folder, names, files in os.walk(directory):
        for path in (Path(folder, name) for name in (*names, *files)):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                return path
        if Path(folder) == directory and "wandb" in names:
            names.remove("wandb")
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object of a run directory; a RunError where there is none."""
    fix = "the run is damaged; name another run.dir, or run.overwrite=true to repeat it"
    try:
        content = parse_json(read_text(path))
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; {fix}") from error
    except ValueError as error:
        raise RunError(f"{path} is no valid JSON ({error}); {fix}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} holds a {type(content).__name__}, not an object; {fix}")
    return content


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a metrics or predictions file, without the last line where a crash has cut it short.

    RunError: another line is no JSON object, or the file cannot be read.
    """
    number = 1
    try:
        for line in read_lines(path):
            try:
                content = parse_json(line)
                if not isinstance(content, dict):
                    raise ValueError(f"a {type(content).__name__}, not an object")
            except ValueError:
                if line.endswith("\n"):
                    raise
                return
            yield content
            number += 1
    except ValueError as error:
        raise RunError(f"{path}:{number} is no valid JSON ({error}); run.overwrite=true repeats it") from error


def newer_format(content: Mapping[str, Any], known: int) -> str:
    """Say so where an object has a ``format`` above the newest known one; empty where it can be read."""
    format = content.get("format", 1)
    if isinstance(format, int) and not isinstance(format, bool) and 1 <= format <= known:
        return ""
    return f"has format {str(format)[:40]}, this mmpt reads up to {known}; update mmpt"


def values_key(values: Mapping[str, Any]) -> str:
    """Hash plain values; neither their order nor the spelling of a number (1 or 1.0) matters."""
    plain = json.loads(json.dumps(values, default=str, skipkeys=True), parse_int=float)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def dumps(content: Mapping[str, Any], indent: int | None = None) -> str:
    """Format plain values, numpy and torch scalars, and paths as JSON; NaN and infinity become null."""
    return json.dumps(_plain(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
