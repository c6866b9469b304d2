"""Options of ``method=apt``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.prefix_options import DeepPrefix


@dataclass(frozen=True)
class APT(DeepPrefix):
    """Options of ``method=apt``."""

    name: ClassVar[str] = "apt"
    GROUPS: ClassVar[tuple[str, ...]] = ("prefix", "token_gates", "layer_gates")
    SAME: ClassVar[Mapping[str, str]] = {"prefix": "prefix of layout per_layer"}
