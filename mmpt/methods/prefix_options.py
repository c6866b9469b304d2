"""What options of methods with deep prefixes have in common: sites, layouts, gates and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from mmpt.attention.architectures import ARCHITECTURES, Site, refuse_sites
from mmpt.errors import ConfigError
from mmpt.methods.options import SITES, LastLayers, MethodOptions, Start


@dataclass(frozen=True)
class Attention(LastLayers):
    """Where a method acts on attention: sites, and the last layers of each."""

    sites: list[Site] | Literal["auto"] = "auto"

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems()
        if not self.sites:
            lines.append(f"method.sites=[] names no site; allowed: auto, {', '.join(SITES)}, self")
        if self.sites != "auto" and len(set(self.sites)) != len(self.sites):
            lines.append(f"method.sites={list(self.sites)} names a site twice")
        return lines

    def for_architecture(self, model_type: str) -> Self:
        """See the base class: the sites."""
        refuse_sites(model_type, self.sites)
        sites: Any = list(ARCHITECTURES[model_type].default_sites)
        return replace(self, sites=sites) if self.sites == "auto" else self


@dataclass(frozen=True)
class DeepPrefix(Attention, Start):
    """A deep prefix: S tokens with keys and values in each layer of the chosen sites."""

    SHARES: ClassVar[tuple[str, ...]] = ("prefix_dropout",)

    prefix_dropout: float = 0.0


# what layout paper, the published one, allows, of the options that a method has
PAPER: dict[str, tuple[Any, ...]] = {
    "layers": ("all",),
    "sites": (["decoder"],),
    "gate": (False,),
    "init": ("random", "adapter"),
    "reparametrization": ("none",),
    "mask_granularity": ("layer",),
}


@dataclass(frozen=True)
class PrefixShape(DeepPrefix):
    """A deep prefix in one of the layouts, with or without a gate."""

    layout: Literal["per_layer", "paper", "peft"] = "per_layer"
    gate: bool = False

    @property
    def has_positions(self) -> bool:
        """See the base class."""
        return self.layout == "paper"

    def transferable_groups(self) -> dict[str, str]:
        """See the base class."""
        groups = super().transferable_groups()
        return {**groups, "prefix": f"prefix of layout {self.layout}", "gates": "gate of a prefix"}

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems()
        if self.gate and self.init == "zero":
            lines.append(
                "method.gate=true with method.init=zero would never train: neither gets a gradient while the other is "
                "zero; set method.init=random (the closed gate alone leaves the backbone as it is)"
            )
        given = {name: getattr(self, name) for name in PAPER if self.layout == "paper" and hasattr(self, name)}
        lines += [
            f"method.layout=paper is not published with method.{name}={_word(value)}; set method.{name}="
            f"{_word(PAPER[name][0])} or method.layout=per_layer"
            for name, value in given.items()
            if value not in PAPER[name]
        ]
        return lines

    def for_architecture(self, model_type: str) -> Self:
        """See the base class."""
        if self.layout == "paper" and not ARCHITECTURES[model_type].relative_bias:
            raise ConfigError(
                f"method.layout=paper is how the published code prefixes T5; for {model_type} models set "
                "method.layout=per_layer and method.sites=auto"
            )
        if self.layout == "peft" and not ARCHITECTURES[model_type].decoder_only:
            raise ConfigError(
                f"method.layout=peft is peft's prefix tuning of decoder-only models; for {model_type} models set "
                "method.layout=per_layer"
            )
        return super().for_architecture(model_type)


def _word(value: Any) -> str:
    """A value as the command line has it."""
    return str(value).replace("'", "").replace("False", "false").replace("True", "true")


@dataclass(frozen=True)
class MaskOptions(MethodOptions):
    """Masks over a prefix: what each entry is about, and how it starts."""

    LEAST: ClassVar[Mapping[str, int]] = {"mask_init_std": 0}
    POSITIVE: ClassVar[tuple[str, ...]] = ("mask_temperature",)

    mask_init_mean: float = 2.5
    mask_init_std: float = 0.5
    mask_granularity: Literal["layer", "head", "key_value"] = "layer"
    mask_temperature: float = 1.0

    def problems(self) -> list[str]:
        """See the base class."""
        mask = getattr(self, "mask", None)
        unused = self._without_effect("with method.mask=none", "mask_granularity") if mask == "none" else []
        return super().problems() + unused
