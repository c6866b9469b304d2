"""Options of ``method=prompt``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.options import Init, Start, too_small


@dataclass(frozen=True)
class Prompt(Start):
    """Options of ``method=prompt``."""

    name: ClassVar[str] = "prompt"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts",)

    num_virtual_tokens: int = 10
    init: Init = "vocab"
    init_std: float = 1.0

    def transferable_groups(self) -> dict[str, str]:
        """See the base class."""
        return {**super().transferable_groups(), "prompts": "prompt"}

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems() + too_small(self, 1, "num_virtual_tokens")
        if self.init == "adapter" and getattr(self, "reparametrization", "none") != "none":
            lines.append("method.init=adapter sets the prompt itself; set method.reparametrization=none")
        return lines


OPTIONS = Prompt
