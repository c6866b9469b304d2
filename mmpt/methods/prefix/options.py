"""Options of ``method=prefix``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.prefix_options import MaskOptions, PrefixShape


@dataclass(frozen=True)
class Prefix(PrefixShape, MaskOptions):
    """Options of ``method=prefix``."""

    name: ClassVar[str] = "prefix"
    GROUPS: ClassVar[tuple[str, ...]] = ("prefix", "masks", "gates")
    SAME: ClassVar[Mapping[str, str]] = {"masks": "one mask"}
    LEAST: ClassVar[Mapping[str, int]] = {"reparametrization_hidden": 1}

    reparametrization: Literal["none", "mlp"] = "none"
    reparametrization_hidden: int = 512
    mask: Literal["none", "single"] = "none"

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return self._groups(masks=self.mask == "single", gates=self.gate)

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems()
        if self.reparametrization == "mlp" and self.init != "random":
            lines.append(
                f"method.init={self.init} sets the prefix itself; set method.reparametrization=none or "
                "method.init=random"
            )
        return lines
