"""Options of ``method=dept``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmpt.methods.prompt.options import Prompt


@dataclass(frozen=True)
class DePT(Prompt):
    """Options of ``method=dept``; defaults of the published code."""

    name: ClassVar[str] = "dept"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "low_rank")
    LEAST: ClassVar[Mapping[str, int]] = {"r": 1, "max_length": 1}
    POSITIVE: ClassVar[tuple[str, ...]] = ("alpha",)

    num_virtual_tokens: int = 40
    r: int = 45
    alpha: float = 8.0
    max_length: int = 256

    @property
    def text_limit(self) -> int:
        """See the base class."""
        return self.max_length
