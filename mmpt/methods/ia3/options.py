"""Options of ``method=ia3``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.options import LastLayers


@dataclass(frozen=True)
class IA3(LastLayers):
    """Options of ``method=ia3``; the learning rate is that published for T5."""

    name: ClassVar[str] = "ia3"
    GROUPS: ClassVar[tuple[str, ...]] = ("ia3",)
    QUANTISED: ClassVar[tuple[str, ...]] = ("float32",)  # which peft's layers give there

    target_modules: list[str] | Literal["auto"] = "auto"
    feedforward_modules: list[str] | Literal["auto"] = "auto"

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems()
        if not self.target_modules:
            lines.append("method.target_modules=[] names no module; set method.target_modules=auto")
        elif self.feedforward_modules == "auto":
            return lines
        elif self.target_modules == "auto":
            lines.append(
                "method.feedforward_modules is a list, so method.target_modules must be one too; or set it to auto"
            )
        elif rest := [name for name in self.feedforward_modules if name not in self.target_modules]:
            lines.append(
                f"method.feedforward_modules has {rest[0]}, which is not in method.target_modules; add it there"
            )
        return lines
