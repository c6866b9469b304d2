"""Models in a GGUF file: dequantised once, into a folder of safetensors in the cache directory."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from mmpt.errors import ModelError
from mmpt.utils.files import cache_directory
from mmpt.utils.locks import holding
from mmpt.utils.untrusted import one_line


def dequantised(file: Path, folder: Path | None = None) -> Path:
    """The folder of a GGUF file's model and tokenizer, which is written if it is not there yet.

    Args:
        file: Any GGUF file of an architecture that transformers can read.
        folder: Where to write; by default ``models/SHA256`` in the cache directory.

    Raises:
        ModelError: transformers cannot read the file, or there is no room for the folder.
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
