"""Adapters as runs leave them, without training: on the bundled backbone, with values drawn from a seed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from mmpt.cli import CONF
from mmpt.config.compose import compose, read_command_line
from mmpt.config.schema import ModelConfig
from mmpt.data.tokenizer import tokenizer_fingerprint
from mmpt.methods import method_class
from mmpt.models.adapter_files import save_adapter
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.engine import build_engine
from mmpt.training.settings import check

_BACKBONES: dict[str, Backbone] = {}


def save(directory: Path, *overrides: str, seed: int = 0) -> Path:
    """Save an adapter of the bundled backbone.

    Args:
        directory: Where; ``adapter/`` below it is written.
        overrides: Words of the command line: task, method and their options.
        seed: Of the values.

    Returns:
        ``directory``.
    """
    config = check(compose(read_command_line(list(overrides), CONF).overrides, CONF))
    backbone = (
        load_backbone(config.model) if method_class(config.method.name).changes_backbone() else _shared(config.model)
    )
    torch.manual_seed(seed)
    model = build_engine(backbone, config.method.options)
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.add_(0.3 * parameter.std(correction=0).clamp(min=0.05) * torch.randn_like(parameter))
    description = {
        "backbone": {**asdict(config.model), "fingerprint": backbone.fingerprint},
        "tokenizer": tokenizer_fingerprint(backbone.tokenizer),
        "task": asdict(config.task),
        "evaluation": asdict(config.evaluation),
        "max_length": config.data.max_length,
        "seed": config.seed,
    }
    save_adapter(directory / "adapter", model.method, description)
    return directory


def _shared(config: ModelConfig) -> Backbone:
    """A backbone that no method may change."""
    key = repr(config)
    if key not in _BACKBONES:
        _BACKBONES[key] = load_backbone(config)
    return _BACKBONES[key]
