"""Options of ``method=ptuning``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.options import Init
from mmpt.methods.prompt.options import Prompt


@dataclass(frozen=True)
class PTuning(Prompt):
    """Options of ``method=ptuning``."""

    name: ClassVar[str] = "ptuning"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "reparametrization")

    init: Init = "random"
    reparametrization: Literal["lstm", "mlp", "none"] = "lstm"
    reparametrization_hidden: int | None = None

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return self._groups(reparametrization=self.reparametrization != "none")

    def problems(self) -> list[str]:
        """See the base class."""
        lines, hidden = super().problems(), self.reparametrization_hidden
        if hidden is not None and (hidden < 2 or hidden % 2):
            lines.append(f"method.reparametrization_hidden={hidden} must be even and at least 2, or null")
        return lines
