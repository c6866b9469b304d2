"""Options of ``method=smop``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.options import Init, RouterOptions, Start, too_small


@dataclass(frozen=True)
class SMoP(Start, RouterOptions):
    """Options of ``method=smop``."""

    name: ClassVar[str] = "smop"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "router")

    num_virtual_tokens: int = 5
    init: Init = "vocab"
    init_std: float = 1.0

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return self._groups(router=self.num_routes > 1)

    def transferable_groups(self) -> dict[str, str]:
        """See the base class."""
        return {**super().transferable_groups(), "router": "router over the embedding"}

    def problems(self) -> list[str]:
        """See the base class."""
        lines = [*Start.problems(self), *RouterOptions.problems(self)]
        return lines + too_small(self, 1, "num_virtual_tokens")


OPTIONS = SMoP
