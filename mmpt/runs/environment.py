"""The environment of a run: machine, versions, commit. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_HUGGING_FACE = ("transformers", "tokenizers", "peft", "accelerate", "datasets", "safetensors")
PACKAGES = ("mmpt", "torch", *_HUGGING_FACE, "numpy", "hydra-core", "omegaconf", "wandb")

TESTED = {"torch": (2, 14), "transformers": (5, 24)}  # the newest releases that the tests passed with: tests/matrix.py


def untested() -> list[str]:
    """One line for each package that is newer than the releases the tests passed with."""
    lines = []
    for name, tested in TESTED.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            version = metadata.version(name)
            if tuple(map(int, re.findall(r"\d+", version)[:2])) > tested:
                newest = ".".join(map(str, tested))
                lines.append(f"{name} {version} is newer than {newest}, the last release that mmpt was tested with")
    return lines


def environment() -> dict[str, Any]:
    """Describe the environment of a run.

    Returns:
        ``python``, ``platform``, ``cpu`` (model), ``cores``, ``threads`` (None where torch is not loaded), ``gpus``
        (names), ``versions`` (package to version), ``git`` (``commit`` and ``dirty`` of a checkout of mmpt, or None).
    """
    torch = sys.modules.get("torch")
    gpus: list[str] = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": None if torch is None else torch.get_num_threads(),
        "gpus": gpus,
        "versions": _versions(),
        "git": _git(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", path.read_text(encoding="utf-8"), re.M) if path.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


@functools.cache
def _git() -> dict[str, Any] | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, or inside somebody else's repository
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):  # no git on this machine: the versions have to do
        return None
