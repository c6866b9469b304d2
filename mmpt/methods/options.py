"""Every method's options as a frozen dataclass. No torch here, so that a typo is answered at once.

``OPTIONS`` is the one table of method names: its keys are the YAML files of ``conf/method`` and the modules of
``mmpt.methods``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from mmpt.errors import ConfigError
from mmpt.models.architectures import ARCHITECTURES, Site, refuse_sites

SITES: tuple[str, ...] = ("encoder", "decoder", "cross")  # of encoder-decoder models; one stack has the site self


@dataclass(frozen=True)
class MethodOptions:
    """What all methods share: the names of their parameter groups."""

    GROUPS: ClassVar[tuple[str, ...]] = ()  # every learning-rate group the method can have

    def groups(self) -> tuple[str, ...]:
        """Name the parameter groups that exist under these options; each needs a learning rate."""
        return self.GROUPS

    def problems(self) -> list[str]:
        """Name every impossible value or combination, one line each, with the remedy."""
        return []

    def for_architecture(self, model_type: str) -> Self:
        """These options on a backbone: what they leave to the architecture is filled in.

        Args:
            model_type: A key of ``mmpt.models.architectures.ARCHITECTURES``.

        Raises:
            ConfigError: The architecture can't have what they ask for.
        """
        return self


def _at_least(options: MethodOptions, least: float, *names: str) -> list[str]:
    return [
        f"method.{name}={getattr(options, name)} is too small; it must be at least {least}"
        for name in names
        if getattr(options, name) < least
    ]


@dataclass(frozen=True)
class Start(MethodOptions):
    """Where a prefix or prompt starts from, as far as all methods with one share it."""

    init: Literal["random", "zero", "vocab", "text"] = "random"
    init_text: str | None = None
    init_std: float = 0.5

    @property
    def spread(self) -> float:
        """Standard deviation of the values that are drawn before the backbone gives any."""
        return 0.0 if self.init == "zero" else self.init_std

    def problems(self) -> list[str]:
        """See the base class."""
        found = _at_least(self, 0, "init_std")
        if self.init == "text" and not (self.init_text or "").strip():
            found.append('method.init=text needs a text; set method.init_text="..."')
        if self.init != "text" and self.init_text is not None:
            found.append(f"method.init_text has no effect with method.init={self.init}; set method.init=text")
        return found


@dataclass(frozen=True)
class RouterOptions(MethodOptions):
    """A router over R routes, from the mean word embedding (MMPT section 3; SMoP section 3)."""

    num_routes: int = 4
    top_k: int = 1
    perturb_router: bool = True
    router_noise: float = 1.0
    router_dropout: float = 0.2

    def problems(self) -> list[str]:
        """See the base class."""
        found = _at_least(self, 1, "num_routes", "top_k") + _at_least(self, 0, "router_noise", "router_dropout")
        if self.top_k > self.num_routes:
            found.append(f"method.top_k={self.top_k} exceeds method.num_routes={self.num_routes}; choose at most that")
        if self.router_dropout >= 1:
            found.append(f"method.router_dropout={self.router_dropout} must lie below 1")
        return found


@dataclass(frozen=True)
class PrefixShape(Start):
    """A deep prefix: S tokens with keys and values in each layer of the chosen sites."""

    num_virtual_tokens: int = 10
    sites: list[Site] | Literal["auto"] = "auto"
    layers: str = "all"
    layout: Literal["per_layer", "paper", "peft"] = "per_layer"
    gate: bool = False

    def problems(self) -> list[str]:
        """See the base class."""
        found = super().problems() + _at_least(self, 1, "num_virtual_tokens")
        if not self.sites:
            found.append(f"method.sites=[] names no site; allowed: auto, {', '.join(SITES)}, self")
        if self.sites != "auto" and len(set(self.sites)) != len(self.sites):
            found.append(f"method.sites={list(self.sites)} names a site twice")
        if re.fullmatch(r"all|last_[1-9][0-9]*", self.layers) is None:
            found.append(f"method.layers={self.layers} isn't allowed; give all, or last_N with N from 1, as in last_4")
        if self.layout == "paper":
            if self.layers != "all":
                found.append(
                    f"method.layout=paper has its prefix in all layers, not in {self.layers}; set method.layers=all "
                    "or method.layout=per_layer"
                )
            if self.sites != ["decoder"]:
                found.append(
                    f"method.layout=paper has its prefix at the decoder alone, not at {self.sites}; "
                    "set method.sites=[decoder] or method.layout=per_layer"
                )
            if self.gate:
                found.append("method.layout=paper has no gate; set method.gate=false or method.layout=per_layer")
            if self.init != "random":
                found.append("method.layout=paper starts from random values; set method.init=random")
        return found

    def for_architecture(self, model_type: str) -> Self:
        """See the base class: the sites."""
        architecture = ARCHITECTURES[model_type]
        if self.layout == "paper" and not architecture.relative_bias:
            raise ConfigError(
                f"method.layout=paper is how the published code prefixes T5; for {model_type} models set "
                "method.layout=per_layer and method.sites=auto"
            )
        if self.layout == "peft" and architecture.kind != "causal":
            raise ConfigError(
                f"method.layout=peft is peft's prefix tuning of decoder-only models; for {model_type} models set "
                "method.layout=per_layer"
            )
        refuse_sites(model_type, self.sites)
        return replace(self, sites=list(architecture.default_sites)) if self.sites == "auto" else self


@dataclass(frozen=True)
class Prefix(PrefixShape):
    """Options of ``method=prefix``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prefix", "masks", "gates")

    reparametrization: Literal["none", "mlp"] = "none"
    reparametrization_hidden: int = 512
    mask: Literal["none", "single"] = "none"
    mask_init_mean: float = 2.5
    mask_init_std: float = 0.5

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        present = {"prefix": True, "masks": self.mask == "single", "gates": self.gate}
        return tuple(name for name in self.GROUPS if present[name])

    def problems(self) -> list[str]:
        """See the base class."""
        found = (
            super().problems() + _at_least(self, 1, "reparametrization_hidden") + _at_least(self, 0, "mask_init_std")
        )
        if self.layout == "paper" and self.reparametrization != "none":
            found.append("method.layout=paper has no reparametrization; set method.reparametrization=none")
        if self.reparametrization == "mlp" and self.init != "random":
            found.append(
                f"method.init={self.init} sets the prefix itself; set method.reparametrization=none or "
                "method.init=random"
            )
        return found


@dataclass(frozen=True)
class MultiMask(PrefixShape, RouterOptions):
    """Options of ``method=multimask``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prefix", "prompts", "masks", "router", "gates")

    share_type: Literal["only", "add", "prepend", "none"] = "only"
    num_route_tokens: int = 1
    mask: Literal["per_route", "single", "none"] = "per_route"
    mask_init_mean: float = 2.5
    mask_init_std: float = 0.5

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

    def problems(self) -> list[str]:
        """See the base class."""
        found = [*PrefixShape.problems(self), *RouterOptions.problems(self)]
        found += _at_least(self, 1, "num_route_tokens") + _at_least(self, 0, "mask_init_std")
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
        return found


@dataclass(frozen=True)
class SMoP(Start, RouterOptions):
    """Options of ``method=smop``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "router")

    num_virtual_tokens: int = 5
    init: Literal["random", "zero", "vocab", "text"] = "vocab"
    init_std: float = 1.0

    def groups(self) -> tuple[str, ...]:
        """See the base class."""
        return ("prompts", "router") if self.num_routes > 1 else ("prompts",)

    def problems(self) -> list[str]:
        """See the base class."""
        found = [*Start.problems(self), *RouterOptions.problems(self)]
        return found + _at_least(self, 1, "num_virtual_tokens")


@dataclass(frozen=True)
class Prompt(Start):
    """Options of ``method=prompt``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts",)

    num_virtual_tokens: int = 10
    init: Literal["random", "zero", "vocab", "text"] = "vocab"
    init_std: float = 1.0

    def problems(self) -> list[str]:
        """See the base class."""
        return super().problems() + _at_least(self, 1, "num_virtual_tokens")


@dataclass(frozen=True)
class PTuning(Prompt):
    """Options of ``method=ptuning``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "reparametrization")

    init: Literal["random", "zero", "vocab", "text"] = "random"
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
        return super().problems() + _at_least(self, 1, "reparametrization_hidden")


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
        found = super().problems() + _at_least(self, 1, "r", "max_length")
        return [*found, f"method.alpha={self.alpha} must be positive"] if self.alpha <= 0 else found


@dataclass(frozen=True)
class LoRA(MethodOptions):
    """Options of ``method=lora``."""

    GROUPS: ClassVar[tuple[str, ...]] = ("lora",)

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: list[str] | Literal["auto"] = "auto"

    def problems(self) -> list[str]:
        """See the base class."""
        found = _at_least(self, 1, "r") + _at_least(self, 0, "dropout")
        if self.alpha <= 0:
            found.append(f"method.alpha={self.alpha} must be positive")
        if not self.target_modules:
            found.append("method.target_modules=[] names no module; set method.target_modules=auto")
        return found


@dataclass(frozen=True)
class IA3(MethodOptions):
    """Options of ``method=ia3``; the learning rate is that published for T5."""

    GROUPS: ClassVar[tuple[str, ...]] = ("ia3",)

    target_modules: list[str] | Literal["auto"] = "auto"
    feedforward_modules: list[str] | Literal["auto"] = "auto"

    def problems(self) -> list[str]:
        """See the base class."""
        if not self.target_modules:
            return ["method.target_modules=[] names no module; set method.target_modules=auto"]
        if self.feedforward_modules == "auto":
            return []
        if self.target_modules == "auto":
            return ["method.feedforward_modules is a list, so method.target_modules must be one too; or set it to auto"]
        if rest := [name for name in self.feedforward_modules if name not in self.target_modules]:
            return [f"method.feedforward_modules has {rest[0]}, which isn't in method.target_modules; add it there"]
        return []


@dataclass(frozen=True)
class Full(MethodOptions):
    """Options of ``method=full``: none, every weight of the backbone is trained."""

    GROUPS: ClassVar[tuple[str, ...]] = ("backbone",)


OPTIONS: dict[str, type[MethodOptions]] = {
    "multimask": MultiMask,
    "prefix": Prefix,
    "smop": SMoP,
    "prompt": Prompt,
    "ptuning": PTuning,
    "residual": Residual,
    "dept": DePT,
    "lora": LoRA,
    "ia3": IA3,
    "full": Full,
}
