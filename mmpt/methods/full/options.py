"""Options of ``method=full``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.options import MethodOptions


@dataclass(frozen=True)
class Full(MethodOptions):
    """Options of ``method=full``: none, every weight of the backbone is trained."""

    name: ClassVar[str] = "full"
    GROUPS: ClassVar[tuple[str, ...]] = ("backbone",)
    trains_all: ClassVar[bool] = True
