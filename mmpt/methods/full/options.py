"""Options of ``method=full``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.options import LastLayers


@dataclass(frozen=True)
class Full(LastLayers):
    """Options of ``method=full``: every weight of the backbone is trained, or those of the last layers."""

    name: ClassVar[str] = "full"
    GROUPS: ClassVar[tuple[str, ...]] = ("backbone",)
    trains_all: ClassVar[bool] = True
