"""What options of several methods have in common, as frozen dataclasses. No torch here: a typo is reported at once.

A method's own options are in ``mmpt/methods/NAME/options.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

from mmpt.attention.architectures import ARCHITECTURES, Site, refuse_sites
from mmpt.config.typed_build import INVALID, Problems, build, fields_of
from mmpt.errors import ConfigError

Init = Literal["random", "zero", "vocab", "text", "adapter"]
SITES: tuple[str, ...] = ("encoder", "decoder", "cross")  # of encoder-decoder models; one stack has the site self

HEAD = "head"  # the group that every method has on a model with a classification head
HEAD_RATE = 0.001  # its learning rate, where none is given


@dataclass(frozen=True)
class MethodOptions:
    """Options of a method: the same object from the configuration to the tensors, checked on construction."""

    name: ClassVar[str] = ""  # of the method: its folder, or the user's file
    GROUPS: ClassVar[tuple[str, ...]] = ()  # every learning-rate group the method can have
    trains_all: ClassVar[bool] = False  # whether every weight of the backbone is trained, which is then float32

    def __post_init__(self) -> None:
        """Check types, then values and combinations.

        Raises:
            ConfigError: With all problems.
        """
        problems = Problems()
        hints = fields_of(type(self))
        for item in fields(self):
            value = getattr(self, item.name)
            value = list(value) if isinstance(value, tuple) else value
            built = build(hints[item.name], value, f"method.{item.name}", problems)
            if built is not INVALID:
                object.__setattr__(self, item.name, built)  # an integer where a number is expected is one
        if lines := [text for _, text in problems.found] or self.problems():
            raise ConfigError(lines)

    @property
    def text_limit(self) -> int | None:
        """How many source tokens the method can change; None: all."""
        return None

    @property
    def reads_encoder(self) -> bool:
        """Whether the method reads the encoder's output, which nothing trained or random may then change."""
        return False

    @property
    def has_positions(self) -> bool:
        """Whether a prefix takes positions of the sequence, which a cache of fixed size cannot count."""
        return False

    def groups(self) -> tuple[str, ...]:
        """The parameter groups that exist under these options; each needs a learning rate."""
        return self.GROUPS

    def transferable_groups(self) -> dict[str, str]:
        """By group, what its tensors are: another method's group with the same words can start from them."""
        return {group: f"{group} of {type(self).__name__}" for group in self.groups()}

    def problems(self) -> list[str]:
        """Every impossible value or combination, one line each, with the remedy."""
        return []

    def for_architecture(self, model_type: str) -> Self:
        """These options on a backbone: what they leave to the architecture is filled in.

        Args:
            model_type: A key of ``mmpt.attention.architectures.ARCHITECTURES``.

        Raises:
            ConfigError: The architecture cannot have what they ask for.
        """
        return self

    def _groups(self, **present: bool) -> tuple[str, ...]:
        """The groups, without those that are named as absent."""
        return tuple(group for group in self.GROUPS if present.get(group, True))


def too_small(options: MethodOptions, least: float, *names: str) -> list[str]:
    """Name the options below the least allowed value."""
    return [
        f"method.{name}={getattr(options, name)} is too small; it must be at least {least}"
        for name in names
        if getattr(options, name) < least
    ]


def not_positive(options: MethodOptions, name: str) -> list[str]:
    """Name the option where it is zero or less."""
    value = getattr(options, name)
    return [f"method.{name}={value} must be positive"] if value <= 0 else []


@dataclass(frozen=True)
class Start(MethodOptions):
    """Where a prefix or prompt starts from, as far as all methods with one share it."""

    init: Init = "random"
    init_text: str | None = None
    init_adapter: str | None = None
    init_std: float = 0.5

    @property
    def spread(self) -> float:
        """Standard deviation of the values that are drawn before the backbone gives any."""
        return 0.0 if self.init == "zero" else self.init_std

    def problems(self) -> list[str]:
        """See the base class."""
        lines = too_small(self, 0, "init_std")
        if self.init == "text" and not (self.init_text or "").strip():
            lines.append('method.init=text needs a text; set method.init_text="..."')
        if self.init != "text" and self.init_text is not None:
            lines.append(f"method.init_text has no effect with method.init={self.init}; set method.init=text")
        if self.init == "adapter" and not (self.init_adapter or "").strip():
            lines.append("method.init=adapter needs a finished run; set method.init_adapter=RUN_DIR")
        if self.init != "adapter" and self.init_adapter is not None:
            lines.append(f"method.init_adapter has no effect with method.init={self.init}; set method.init=adapter")
        return lines


@dataclass(frozen=True)
class RouterOptions(MethodOptions):
    """A router over R routes, from the mean word embedding (MMPT section 3; SMoP section 3)."""

    num_routes: int = 4
    top_k: int = 1
    perturb_router: bool = True
    router_noise: float = 1.0
    router_dropout: float = 0.2
    load_balance: float = 0.0

    def problems(self) -> list[str]:
        """See the base class."""
        lines = too_small(self, 1, "num_routes", "top_k")
        lines += too_small(self, 0, "router_noise", "router_dropout", "load_balance")
        if self.top_k > self.num_routes:
            lines.append(f"method.top_k={self.top_k} exceeds method.num_routes={self.num_routes}; choose at most that")
        if self.router_dropout >= 1:
            lines.append(f"method.router_dropout={self.router_dropout} must lie below 1")
        return lines


@dataclass(frozen=True)
class DeepPrefix(Start):
    """A deep prefix: S tokens with keys and values in each layer of the chosen sites."""

    num_virtual_tokens: int = 10
    sites: list[Site] | Literal["auto"] = "auto"
    layers: str = "all"
    prefix_dropout: float = 0.0

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems() + too_small(self, 1, "num_virtual_tokens")
        if not 0 <= self.prefix_dropout < 1:
            lines.append(f"method.prefix_dropout={self.prefix_dropout} must lie from 0 to below 1")
        if not self.sites:
            lines.append(f"method.sites=[] names no site; allowed: auto, {', '.join(SITES)}, self")
        if self.sites != "auto" and len(set(self.sites)) != len(self.sites):
            lines.append(f"method.sites={list(self.sites)} names a site twice")
        if re.fullmatch(r"all|last_[1-9][0-9]*", self.layers) is None:
            lines.append(f"method.layers={self.layers} is not allowed; give all, or last_N with N from 1, as in last_4")
        return lines

    def for_architecture(self, model_type: str) -> Self:
        """See the base class: the sites."""
        refuse_sites(model_type, self.sites)
        sites: Any = list(ARCHITECTURES[model_type].default_sites)
        return replace(self, sites=sites) if self.sites == "auto" else self


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
        return lines + (self._paper_problems() if self.layout == "paper" else [])

    def _paper_problems(self) -> list[str]:
        """What the published layout has not."""
        lines = []
        if self.layers != "all":
            lines.append(
                f"method.layout=paper has its prefix in all layers, not in {self.layers}; set method.layers=all "
                "or method.layout=per_layer"
            )
        if self.sites != ["decoder"]:
            lines.append(
                f"method.layout=paper has its prefix at the decoder alone, not at {self.sites}; "
                "set method.sites=[decoder] or method.layout=per_layer"
            )
        if self.gate:
            lines.append("method.layout=paper has no gate; set method.gate=false or method.layout=per_layer")
        if self.init not in ("random", "adapter"):
            lines.append("method.layout=paper starts from random values; set method.init=random")
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


@dataclass(frozen=True)
class MaskOptions(MethodOptions):
    """Masks over a prefix: what each entry is about, and how it starts."""

    mask_init_mean: float = 2.5
    mask_init_std: float = 0.5
    mask_granularity: Literal["layer", "head", "key_value"] = "layer"
    mask_temperature: float = 1.0

    def mask_problems(self, mask: str, layout: str) -> list[str]:
        """What is impossible about masks, given the options ``mask`` and ``layout`` of the method."""
        lines = too_small(self, 0, "mask_init_std") + not_positive(self, "mask_temperature")
        if self.mask_granularity != "layer" and mask == "none":
            lines.append(
                f"method.mask_granularity={self.mask_granularity} has no effect with method.mask=none; set "
                "method.mask_granularity=layer"
            )
        if self.mask_granularity != "layer" and layout == "paper":
            lines.append("method.layout=paper has masks by layer; set method.mask_granularity=layer")
        return lines
