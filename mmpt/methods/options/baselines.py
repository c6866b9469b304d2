"""Options of the baselines that change the backbone itself, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.options.common import MethodOptions, at_least


@dataclass(frozen=True)
class LoRA(MethodOptions):
    """Options of ``method=lora``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("lora",)

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: list[str] | Literal["auto"] = "auto"

    def problems(self) -> list[str]:
        """See the base class."""
        found = at_least(self, 1, "r") + at_least(self, 0, "dropout")
        if self.alpha <= 0:
            found.append(f"method.alpha={self.alpha} must be positive")
        if not self.target_modules:
            found.append("method.target_modules=[] names no module; set method.target_modules=auto")
        return found


@dataclass(frozen=True)
class IA3(MethodOptions):
    """Options of ``method=ia3``; the learning rate is that published for T5."""

    GROUPS: ClassVar[tuple[str, ...]] = ("ia3",)

    target_modules: list[str] | Literal["auto"] = "auto"
    feedforward_modules: list[str] | Literal["auto"] = "auto"

    def problems(self) -> list[str]:
        """See the base class."""
        if not self.target_modules:
            return ["method.target_modules=[] names no module; set method.target_modules=auto"]
        if self.feedforward_modules == "auto":
            return []
        if self.target_modules == "auto":
            return ["method.feedforward_modules is a list, so method.target_modules must be one too; or set it to auto"]
        if rest := [name for name in self.feedforward_modules if name not in self.target_modules]:
            return [f"method.feedforward_modules has {rest[0]}, which isn't in method.target_modules; add it there"]
        return []


@dataclass(frozen=True)
class Full(MethodOptions):
    """Options of ``method=full``: none, every weight of the backbone is trained."""

    GROUPS: ClassVar[tuple[str, ...]] = ("backbone",)
