"""Options of ``method=mept``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.options import RouterOptions, Start


@dataclass(frozen=True)
class MEPT(Start, RouterOptions):
    """Options of ``method=mept``; defaults of the published code."""

    name: ClassVar[str] = "mept"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "shared", "router")

    init_std: float = 0.05
    shared_expert: bool = True

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return self._groups(shared=self.shared_expert, router=self.num_routes > 1)
