"""The last run's backbone, for the next run of this process: a sweep loads and hashes the weights once.

One backbone at most is kept, and only as long as nobody has it: a run takes it away and hands it back once it is over
and nothing in it was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpt.attention.architectures import refuse_sites
from mmpt.config.schema import ModelConfig
from mmpt.models.backbone import Backbone, load_backbone, use_threads

Key = tuple[str, tuple[tuple[str, int, int], ...]]  # the settings, and name, size and time of the files
_kept: dict[Key, Backbone] = {}


def take_backbone(config: ModelConfig, sites: Sequence[str] | str = "auto", classes: int = 2) -> Backbone:
    """The backbone that ``config`` names: the one kept, where that is it and its files are unchanged, else loaded.

    Arguments and errors are those of :func:`mmpt.models.backbone.load_backbone`.
    """
    kept = _kept.pop(_key(config), None)
    _kept.clear()  # before loading: two backbones may not fit
    if kept is None:
        return load_backbone(config, sites=sites, classes=classes)
    refuse_sites(kept.model.config.model_type, sites)
    kept.model.eval()
    use_threads(kept.model)
    return kept


def give_back(config: ModelConfig, backbone: Backbone) -> None:
    """Keep a backbone that nobody uses any more, but for one that was trained, or has layers that were."""
    _kept.clear()
    if not any(parameter.requires_grad for parameter in backbone.model.parameters()):
        _kept[_key(config)] = backbone


def _key(config: ModelConfig) -> Key:
    """Settings and files; a hub's revision stays, for this process, what it was first."""
    folder = Path(config.path or "").expanduser()
    files = sorted(folder.iterdir()) if config.source == "path" and config.path and folder.is_dir() else []
    stamps = [(file.name, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()]]
    return repr(config), tuple(stamps)
