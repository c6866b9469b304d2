"""The last run's backbone, for the next run of this process: a sweep loads and hashes the weights once.

At most one backbone is cached, and only while no run has it: a run acquires it, and releases it once it is over, unless
something in it was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmpt.attention.architectures import refuse_sites
from mmpt.config.schema import ModelConfig
from mmpt.models.adapt import remove_adapter
from mmpt.models.backbone import Backbone, load_backbone, use_threads
from mmpt.models.parts import ADAPTERS

Key = tuple[str, tuple[tuple[str, int, int], ...]]  # the settings, and name, size and time of the files
_cached: dict[Key, Backbone] = {}


def acquire(config: ModelConfig, sites: Sequence[str] | str = "auto", classes: int = 2) -> Backbone:
    """The backbone that ``config`` names: the cached one, if it is that one and its files are unchanged, else loaded.

    Arguments and errors are those of :func:`mmpt.models.backbone.load_backbone`.
    """
    cached = _cached.pop(_key(config), None)
    _cached.clear()  # before loading: two backbones may not fit
    if cached is None:
        return load_backbone(config, sites=sites, classes=classes)
    refuse_sites(cached.model.config.model_type, sites)
    cached.model.eval()
    use_threads(cached.model)
    return cached


def release(config: ModelConfig, backbone: Backbone) -> None:
    """Cache a backbone that no run uses any more, without its adapters; one that was changed is dropped."""
    _cached.clear()
    adapters = getattr(backbone.model, ADAPTERS, None)
    if adapters is not None:
        if any(method.changes_backbone() or method.has_head for method in adapters.methods.values()):
            return
        remove_adapter(backbone.model)
    _cached[_key(config)] = backbone


def _key(config: ModelConfig) -> Key:
    """Settings and files; a hub's revision stays, for this process, what it was first."""
    folder = Path(config.path or "").expanduser()
    files = sorted(folder.iterdir()) if config.source == "path" and config.path and folder.is_dir() else []
    stamps = [(file.name, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()]]
    return repr(config), tuple(stamps)
