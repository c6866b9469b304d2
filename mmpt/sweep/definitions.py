"""The definitions in sweeps/ as options of the group ``sweep``, so that ``sweep=compare`` is all there is to type."""

from __future__ import annotations

from pathlib import Path

import yaml
from hydra.core.config_store import ConfigStore


def register_sweeps(folder: Path) -> None:
    """Give Hydra every ``NAME.yaml`` of a folder as ``sweep=NAME``, over all groups.

    Args:
        folder: Where definitions lie; its subfolders are for other programs.
    """
    for path in sorted(folder.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        ConfigStore.instance().store(
            group="sweep", name=path.stem, node=content, package="_global_", provider=str(path)
        )


def sweep_names(folder: Path) -> list[str]:
    """Names of the definitions in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))
