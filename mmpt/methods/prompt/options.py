"""Options of ``method=prompt``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.options import Init, Start


@dataclass(frozen=True)
class Prompt(Start):
    """Options of ``method=prompt``."""

    name: ClassVar[str] = "prompt"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts",)
    SAME: ClassVar[Mapping[str, str]] = {"prompts": "prompt"}

    init: Init = "vocab"
    init_std: float = 1.0

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems()
        if self.init == "adapter" and getattr(self, "reparametrization", "none") != "none":
            lines.append("method.init=adapter sets the prompt itself; set method.reparametrization=none")
        return lines
