"""Options of ``method=prefix_plus``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.prefix_options import Attention


@dataclass(frozen=True)
class PrefixPlus(Attention):
    """Options of ``method=prefix_plus``."""

    name: ClassVar[str] = "prefix_plus"
    GROUPS: ClassVar[tuple[str, ...]] = ("memory",)
