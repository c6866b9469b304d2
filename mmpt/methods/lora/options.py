"""Options of ``method=lora``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.options import LastLayers


@dataclass(frozen=True)
class LoRA(LastLayers):
    """Options of ``method=lora``."""

    name: ClassVar[str] = "lora"
    GROUPS: ClassVar[tuple[str, ...]] = ("lora",)
    LEAST: ClassVar[Mapping[str, int]] = {"r": 1}
    POSITIVE: ClassVar[tuple[str, ...]] = ("alpha",)
    SHARES: ClassVar[tuple[str, ...]] = ("dropout",)

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: list[str] | Literal["auto"] = "auto"

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems()
        if not self.target_modules:
            lines.append("method.target_modules=[] names no module; set method.target_modules=auto")
        return lines
