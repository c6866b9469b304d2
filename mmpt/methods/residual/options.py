"""Options of ``method=residual``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.options import too_small
from mmpt.methods.prompt.options import Prompt


@dataclass(frozen=True)
class Residual(Prompt):
    """Options of ``method=residual``; defaults of the published code."""

    name: ClassVar[str] = "residual"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "reparametrization")

    reparametrization: Literal["mlp", "none"] = "mlp"
    reparametrization_hidden: int = 800
    layer_norm: bool = True

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return self._groups(reparametrization=self.reparametrization != "none")

    def problems(self) -> list[str]:
        """See the base class."""
        return super().problems() + too_small(self, 1, "reparametrization_hidden")


OPTIONS = Residual
