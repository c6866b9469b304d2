"""Options of the methods that put prompts before the text, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.options.common import Init, RouterOptions, Start, at_least


@dataclass(frozen=True)
class Prompt(Start):
    """Options of ``method=prompt``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts",)

    num_virtual_tokens: int = 10
    init: Init = "vocab"
    init_std: float = 1.0

    def meanings(self) -> dict[str, str]:
        """See the base class."""
        return {**super().meanings(), "prompts": "prompt"}

    def problems(self) -> list[str]:
        """See the base class."""
        found = super().problems() + at_least(self, 1, "num_virtual_tokens")
        if self.init == "adapter" and getattr(self, "reparametrization", "none") != "none":
            found.append("method.init=adapter sets the prompt itself; set method.reparametrization=none")
        return found


@dataclass(frozen=True)
class SMoP(Start, RouterOptions):
    """Options of ``method=smop``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "router")

    num_virtual_tokens: int = 5
    init: Init = "vocab"
    init_std: float = 1.0

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return ("prompts", "router") if self.num_routes > 1 else ("prompts",)

    def meanings(self) -> dict[str, str]:
        """See the base class."""
        return {**super().meanings(), "router": "router over the embedding"}

    def problems(self) -> list[str]:
        """See the base class."""
        found = [*Start.problems(self), *RouterOptions.problems(self)]
        return found + at_least(self, 1, "num_virtual_tokens")


@dataclass(frozen=True)
class PTuning(Prompt):
    """Options of ``method=ptuning``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "reparametrization")

    init: Init = "random"
    reparametrization: Literal["lstm", "mlp", "none"] = "lstm"
    reparametrization_hidden: int | None = None

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return ("prompts",) if self.reparametrization == "none" else self.GROUPS

    def problems(self) -> list[str]:
        """See the base class."""
        found, hidden = super().problems(), self.reparametrization_hidden
        if hidden is not None and (hidden < 2 or hidden % 2):
            found.append(f"method.reparametrization_hidden={hidden} must be even and at least 2, or null")
        return found


@dataclass(frozen=True)
class Residual(Prompt):
    """Options of ``method=residual``; defaults of the published code."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "reparametrization")

    reparametrization: Literal["mlp", "none"] = "mlp"
    reparametrization_hidden: int = 800
    layer_norm: bool = True

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return ("prompts",) if self.reparametrization == "none" else self.GROUPS

    def problems(self) -> list[str]:
        """See the base class."""
        return super().problems() + at_least(self, 1, "reparametrization_hidden")


@dataclass(frozen=True)
class DePT(Prompt):
    """Options of ``method=dept``; defaults of the published code."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "low_rank")

    num_virtual_tokens: int = 40
    r: int = 45
    alpha: float = 8.0
    max_length: int = 256

    def problems(self) -> list[str]:
        """See the base class."""
        found = super().problems() + at_least(self, 1, "r", "max_length")
        return [*found, f"method.alpha={self.alpha} must be positive"] if self.alpha <= 0 else found


@dataclass(frozen=True)
class MEPT(Start, RouterOptions):
    """Options of ``method=mept``; defaults of the published code."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "shared", "router")

    num_virtual_tokens: int = 10
    init_std: float = 0.05
    shared_expert: bool = True

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        present = {"prompts": True, "shared": self.shared_expert, "router": self.num_routes > 1}
        return tuple(name for name in self.GROUPS if present[name])

    def problems(self) -> list[str]:
        """See the base class."""
        found = [*Start.problems(self), *RouterOptions.problems(self)]
        return found + at_least(self, 1, "num_virtual_tokens")
