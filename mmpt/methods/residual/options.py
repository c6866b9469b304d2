"""Options of ``method=residual``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.prompt.options import Prompt


@dataclass(frozen=True)
class Residual(Prompt):
    """Options of ``method=residual``; defaults of the published code."""

    name: ClassVar[str] = "residual"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "reparametrization")
    LEAST: ClassVar[Mapping[str, int]] = {"reparametrization_hidden": 1}

    reparametrization: Literal["mlp", "none"] = "mlp"
    reparametrization_hidden: int = 800
    layer_norm: bool = True

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return self._groups(reparametrization=self.reparametrization != "none")
