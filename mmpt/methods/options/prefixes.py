"""Options of the methods that put prefixes into attention, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from mmpt.attention.architectures import ARCHITECTURES
from mmpt.errors import ConfigError
from mmpt.methods.options.common import DeepPrefix, MaskOptions, PrefixShape, RouterOptions, at_least


@dataclass(frozen=True)
class Prefix(PrefixShape, MaskOptions):
    """Options of ``method=prefix``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prefix", "masks", "gates")

    reparametrization: Literal["none", "mlp"] = "none"
    reparametrization_hidden: int = 512
    mask: Literal["none", "single"] = "none"

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        present = {"prefix": True, "masks": self.mask == "single", "gates": self.gate}
        return tuple(name for name in self.GROUPS if present[name])

    def meanings(self) -> dict[str, str]:
        """See the base class."""
        return {**super().meanings(), "masks": "one mask"}

    def problems(self) -> list[str]:
        """See the base class."""
        found = super().problems() + at_least(self, 1, "reparametrization_hidden")
        found += self.mask_problems(self.mask, self.layout)
        if self.layout == "paper" and self.reparametrization != "none":
            found.append("method.layout=paper has no reparametrization; set method.reparametrization=none")
        if self.reparametrization == "mlp" and self.init != "random":
            found.append(
                f"method.init={self.init} sets the prefix itself; set method.reparametrization=none or "
                "method.init=random"
            )
        return found


@dataclass(frozen=True)
class MultiMask(PrefixShape, RouterOptions, MaskOptions):
    """Options of ``method=multimask``."""

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

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        present = {
            "prefix": self.share_type != "none",
            "prompts": self.share_type != "only",
            "masks": self.mask != "none",
            "router": self.has_router,
            "gates": self.gate,
        }
        return tuple(name for name in self.GROUPS if present[name])

    def meanings(self) -> dict[str, str]:
        """See the base class."""
        masks = "one mask" if self.mask == "single" else "masks of routes"
        return {**super().meanings(), "masks": masks, "router": f"router over the {self.router_input}"}

    def problems(self) -> list[str]:
        """See the base class."""
        found = [*PrefixShape.problems(self), *RouterOptions.problems(self)]
        found += at_least(self, 1, "num_route_tokens") + self.mask_problems(self.mask, self.layout)
        if self.share_type == "add" and self.num_route_tokens != self.num_virtual_tokens:
            found.append(
                f"method.share_type=add adds route prompts to the shared prefix, so method.num_route_tokens="
                f"{self.num_route_tokens} must equal method.num_virtual_tokens={self.num_virtual_tokens}"
            )
        if self.share_type == "only" and self.mask != "per_route" and self.layout != "paper":
            found.append(
                f"method.share_type=only with method.mask={self.mask} leaves the routes without effect; set "
                f"method.mask=per_route, or use method=prefix method.mask={self.mask}"
            )
        return found + self._router_problems()

    def for_architecture(self, model_type: str) -> Self:
        """See the base class."""
        if self.router_input == "encoder" and ARCHITECTURES[model_type].kind != "seq2seq":
            raise ConfigError(
                f"method.router_input=encoder: {model_type} models have no encoder whose output a router could read; "
                "set method.router_input=embedding"
            )
        return super().for_architecture(model_type)

    def _router_problems(self) -> list[str]:
        found = []
        if self.router_input == "encoder" and "encoder" in self.sites:
            found.append(
                "method.router_input=encoder reads the encoder's output, which needs the router's own prefix where "
                "method.sites has encoder; set method.router_input=embedding or leave encoder out of method.sites"
            )
        if not self.has_router:
            for name, plain in (("router_input", "embedding"), ("load_balance", 0.0)):
                if (value := getattr(self, name)) != plain:
                    found.append(f"method.{name}={value} has no effect without routes; set method.{name}={plain}")
        return found


@dataclass(frozen=True)
class AdaptivePrefix(DeepPrefix):
    """Options of ``method=apt``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prefix", "token_gates", "layer_gates")
    STACKABLE: ClassVar[bool] = False

    def meanings(self) -> dict[str, str]:
        """See the base class."""
        return {**super().meanings(), "prefix": "prefix of layout per_layer"}
