"""Options of ``method=multimask``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from mmpt.attention.architectures import ARCHITECTURES
from mmpt.errors import ConfigError
from mmpt.methods.options import InputRouterOptions
from mmpt.methods.prefix_options import MaskOptions, PrefixShape


@dataclass(frozen=True)
class MultiMask(PrefixShape, InputRouterOptions, MaskOptions):
    """Options of ``method=multimask``."""

    name: ClassVar[str] = "multimask"
    GROUPS: ClassVar[tuple[str, ...]] = ("prefix", "prompts", "masks", "router", "gates")
    LEAST: ClassVar[Mapping[str, int]] = {"num_route_tokens": 1}

    share_type: Literal["only", "add", "prepend", "none"] = "only"
    num_route_tokens: int = 1
    mask: Literal["per_route", "single", "none"] = "per_route"
    mask_init: Literal["alike", "apart"] = "alike"
    routing: Literal["soft", "straight_through"] = "soft"
    router_input: Literal["embedding", "encoder", "layer_below"] = "embedding"

    @property
    def has_router(self) -> bool:
        """Whether there is a router: where it can change the result, and always in the published layout."""
        effect = self.num_routes > 1 and (self.mask == "per_route" or self.share_type != "only")
        return effect or self.layout == "paper"

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
        return {**super().transferable_groups(), "masks": masks}

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems()
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
        if self.mask_init == "apart" and self.mask != "per_route":
            lines.append("method.mask_init=apart opens another part for each route; set method.mask=per_route")
        if self.routing == "straight_through" and self.top_k > 1:
            lines.append(f"method.routing=straight_through takes one route; set method.top_k=1, not {self.top_k}")
        if self.reads == "encoder" and "encoder" in self.sites:
            lines.append(
                "method.router_input=encoder reads the encoder's output, which needs the router's own prefix where "
                "method.sites has encoder; set method.router_input=embedding or leave encoder out of method.sites"
            )
        if not self.has_router:
            names = "router_input", "routing", "router_temperature", "router_standardize", "load_balance", "mask_init"
            lines += self._without_effect("without routes", *names)
        return lines

    def for_architecture(self, model_type: str) -> Self:
        """See the base class; what lies below a decoder's prefix is the encoder's output."""
        options, has_encoder = super().for_architecture(model_type), ARCHITECTURES[model_type].has_encoder
        if self.reads == "encoder" and not has_encoder:
            raise ConfigError(
                f"method.router_input=encoder: {model_type} models have no encoder whose output a router could read; "
                "set method.router_input=embedding or method.router_input=layer_below"
            )
        if self.reads != "layer_below":
            return options
        if has_encoder and "encoder" not in options.sites:
            return replace(options, router_input="encoder")
        if self.layers == "all":
            raise ConfigError(
                "method.router_input=layer_below reads the layer below the prefix, which method.layers=all has "
                "everywhere; set method.layers=last_N, or method.router_input=embedding"
            )
        return options
