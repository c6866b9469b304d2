"""Options of ``method=lora``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.options import MethodOptions, not_positive, too_small


@dataclass(frozen=True)
class LoRA(MethodOptions):
    """Options of ``method=lora``."""

    name: ClassVar[str] = "lora"
    GROUPS: ClassVar[tuple[str, ...]] = ("lora",)

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: list[str] | Literal["auto"] = "auto"

    def problems(self) -> list[str]:
        """See the base class."""
        lines = too_small(self, 1, "r") + too_small(self, 0, "dropout") + not_positive(self, "alpha")
        if not self.target_modules:
            lines.append("method.target_modules=[] names no module; set method.target_modules=auto")
        return lines


OPTIONS = LoRA
