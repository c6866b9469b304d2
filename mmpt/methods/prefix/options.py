"""Options of ``method=prefix``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmpt.methods.options import MaskOptions, PrefixShape, too_small


@dataclass(frozen=True)
class Prefix(PrefixShape, MaskOptions):
    """Options of ``method=prefix``."""

    name: ClassVar[str] = "prefix"
    GROUPS: ClassVar[tuple[str, ...]] = ("prefix", "masks", "gates")

    reparametrization: Literal["none", "mlp"] = "none"
    reparametrization_hidden: int = 512
    mask: Literal["none", "single"] = "none"

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return self._groups(masks=self.mask == "single", gates=self.gate)

    def transferable_groups(self) -> dict[str, str]:
        """See the base class."""
        return {**super().transferable_groups(), "masks": "one mask"}

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems() + too_small(self, 1, "reparametrization_hidden")
        lines += self.mask_problems(self.mask, self.layout)
        if self.layout == "paper" and self.reparametrization != "none":
            lines.append("method.layout=paper has no reparametrization; set method.reparametrization=none")
        if self.reparametrization == "mlp" and self.init != "random":
            lines.append(
                f"method.init={self.init} sets the prefix itself; set method.reparametrization=none or "
                "method.init=random"
            )
        return lines


OPTIONS = Prefix
