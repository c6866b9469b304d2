"""Options of ``method=smop``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.options import Init, InputRouterOptions, Start


@dataclass(frozen=True)
class SMoP(Start, InputRouterOptions):
    """Options of ``method=smop``."""

    name: ClassVar[str] = "smop"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "router")

    num_virtual_tokens: int = 5
    init: Init = "vocab"
    init_std: float = 1.0

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return self._groups(router=self.num_routes > 1)

    def problems(self) -> list[str]:
        """See the base class."""
        alone = self._without_effect("without routes", "router_standardize") if self.num_routes == 1 else []
        return super().problems() + alone
