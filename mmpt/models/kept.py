"""The last run's backbone, for the next run of this process: a sweep loads and hashes the weights once.

One backbone at most is kept, and only as long as nobody has it: a run takes it away and hands it back once it is over
and its method has left it as it was.
"""

from __future__ import annotations

from pathlib import Path

from mmpt.config.schema import ModelConfig
from mmpt.models.backbone import Backbone, load_backbone, use_threads

Key = tuple[str, tuple[tuple[str, int, int], ...]]  # the settings, and name, size and time of the files
_kept: dict[Key, Backbone] = {}


def take_backbone(config: ModelConfig) -> Backbone:
    """The backbone that ``config`` names: the one kept, where that is it and its files are unchanged, else loaded.

    Raises:
        ModelError: As of :func:`mmpt.models.backbone.load_backbone`.
    """
    kept = _kept.pop(_key(config), None)
    _kept.clear()  # before loading: two backbones may not fit
    if kept is None:
        return load_backbone(config)
    kept.model.eval()
    use_threads(kept.model)
    return kept


def give_back(config: ModelConfig, backbone: Backbone) -> None:
    """Keep a backbone that nobody uses any more, and whose weights and layers are as they were loaded."""
    _kept.clear()
    _kept[_key(config)] = backbone


def _key(config: ModelConfig) -> Key:
    """Settings and files; a hub's revision stays, for this process, what it was first."""
    folder = Path(config.path or "").expanduser()
    files = sorted(folder.iterdir()) if config.source == "path" and config.path and folder.is_dir() else []
    stamps = [(file.name, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()]]
    return repr(config), tuple(stamps)
