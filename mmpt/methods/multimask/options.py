"""Options of ``method=multimask``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from mmpt.attention.architectures import ARCHITECTURES
from mmpt.errors import ConfigError
from mmpt.methods.options import MaskOptions, PrefixShape, RouterOptions, too_small


@dataclass(frozen=True)
class MultiMask(PrefixShape, RouterOptions, MaskOptions):
    """Options of ``method=multimask``."""

    name: ClassVar[str] = "multimask"
    GROUPS: ClassVar[tuple[str, ...]] = ("prefix", "prompts", "masks", "router", "gates")

    share_type: Literal["only", "add", "prepend", "none"] = "only"
    num_route_tokens: int = 1
    mask: Literal["per_route", "single", "none"] = "per_route"
    router_input: Literal["embedding", "encoder"] = "embedding"

    @property
    def has_router(self) -> bool:
        """Whether there is a router: where it can change the result, and always in the published layout."""
        effect = self.num_routes > 1 and (self.mask == "per_route" or self.share_type != "only")
        return effect or self.layout == "paper"

    @property
    def reads_encoder(self) -> bool:
        """See the base class."""
        return self.router_input == "encoder"

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return self._groups(
            prefix=self.share_type != "none",
            prompts=self.share_type != "only",
            masks=self.mask != "none",
            router=self.has_router,
            gates=self.gate,
        )

    def transferable_groups(self) -> dict[str, str]:
        """See the base class."""
        masks = "one mask" if self.mask == "single" else "masks of routes"
        return {**super().transferable_groups(), "masks": masks, "router": f"router over the {self.router_input}"}

    def problems(self) -> list[str]:
        """See the base class."""
        lines = [*PrefixShape.problems(self), *RouterOptions.problems(self)]
        lines += too_small(self, 1, "num_route_tokens") + self.mask_problems(self.mask, self.layout)
        if self.share_type == "add" and self.num_route_tokens != self.num_virtual_tokens:
            lines.append(
                f"method.share_type=add adds route prompts to the shared prefix, so method.num_route_tokens="
                f"{self.num_route_tokens} must equal method.num_virtual_tokens={self.num_virtual_tokens}"
            )
        if self.share_type == "only" and self.mask != "per_route" and self.layout != "paper":
            lines.append(
                f"method.share_type=only with method.mask={self.mask} leaves the routes without effect; set "
                f"method.mask=per_route, or use method=prefix method.mask={self.mask}"
            )
        return lines + self._router_problems()

    def for_architecture(self, model_type: str) -> Self:
        """See the base class."""
        if self.reads_encoder and not ARCHITECTURES[model_type].has_encoder:
            raise ConfigError(
                f"method.router_input=encoder: {model_type} models have no encoder whose output a router could read; "
                "set method.router_input=embedding"
            )
        return super().for_architecture(model_type)

    def _router_problems(self) -> list[str]:
        lines = []
        if self.reads_encoder and "encoder" in self.sites:
            lines.append(
                "method.router_input=encoder reads the encoder's output, which needs the router's own prefix where "
                "method.sites has encoder; set method.router_input=embedding or leave encoder out of method.sites"
            )
        if not self.has_router:
            for name, plain in (("router_input", "embedding"), ("load_balance", 0.0)):
                if (value := getattr(self, name)) != plain:
                    lines.append(f"method.{name}={value} has no effect without routes; set method.{name}={plain}")
        return lines


OPTIONS = MultiMask
