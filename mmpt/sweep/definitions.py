"""The definitions in sweeps/ as options of the group ``sweep``, so that ``sweep=compare`` is all there is to type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from mmpt.errors import ConfigError
from mmpt.utils.untrusted import parse_yaml


def register_sweeps(folder: Path, conf: Path) -> None:
    """Give Hydra every ``NAME.yaml`` of a folder as ``sweep=NAME``, over all groups.

    A definition may bring ``settings``, each some values under a name; they become ``setting=NAME/SETTING``.
    """
    store = ConfigStore.instance()
    for path, content in _definitions(folder):
        for name, setting in content.pop("settings", {}).items():
            store.store(group=f"setting/{path.stem}", name=name, node=setting, package="_global_", provider=str(path))
        parameters = content.get("hydra", {}).get("sweeper", {}).get("params", {})
        for key in [key for key in parameters if key != "setting" and not (conf / key).is_dir()]:
            parameters[f"++{key}"] = parameters.pop(key)  # as the command line's words are, so that those replace it
        store.store(group="sweep", name=path.stem, node=content, package="_global_", provider=str(path))


def sweep_options(folder: Path) -> dict[str, list[str]]:
    """The options that a folder adds to the groups ``sweep`` and ``setting``."""
    found = list(_definitions(folder))
    settings = [f"{path.stem}/{name}" for path, content in found for name in content.get("settings", {})]
    return {"sweep": [path.stem for path, _ in found], "setting": settings}


def _definitions(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for path in sorted(folder.glob("*.yaml")):
        content = parse_yaml(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not isinstance(content.get("settings", {}), dict):
            raise ConfigError(f"{path} holds no mapping of settings; sweeps/compare.yaml is the shortest example")
        found.append((path, content))
    return found
