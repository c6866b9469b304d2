"""What options of several methods have in common, as frozen dataclasses. No torch here: a typo is reported at once.

A method's own options are in ``mmpt/methods/NAME/options.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Self

from mmpt.config.typed_build import INVALID, Problems, build, fields_of
from mmpt.errors import ConfigError

Init = Literal["random", "zero", "vocab", "text", "adapter"]
SITES: tuple[str, ...] = ("encoder", "decoder", "cross")  # of encoder-decoder models; one stack has the site self

HEAD = "head"  # the group that every method has on a model with a classification head
HEAD_RATE = 0.001  # its learning rate, where none is given


@dataclass(frozen=True)
class MethodOptions:
    """Options of a method: the same object from the configuration to the tensors, checked on construction.

    ``LEAST``, ``POSITIVE`` and ``SHARES`` bound numbers; a class adds its own to those of its bases.
    """

    name: ClassVar[str] = ""  # of the method: its folder, or the user's file
    GROUPS: ClassVar[tuple[str, ...]] = ()  # every learning-rate group the method can have
    trains_all: ClassVar[bool] = False  # whether the backbone's own weights are trained, which are then float32
    QUANTISED: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")  # model.dtype of a quantised backbone
    SAME: ClassVar[Mapping[str, str]] = {}  # see :meth:`transferable_groups`
    LEAST: ClassVar[Mapping[str, int]] = {}  # the least value of an option
    POSITIVE: ClassVar[tuple[str, ...]] = ()  # options above zero
    SHARES: ClassVar[tuple[str, ...]] = ()  # options from zero to below one

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
    def reads(self) -> str:
        """Of what a router reads the mean: ``embedding``, of words, or states that nothing trained or random changes.

        These are ``encoder``, its output, or ``layer_below``, what enters the first layer that the method changes.
        """
        return str(getattr(self, "router_input", "embedding"))

    @property
    def has_positions(self) -> bool:
        """Whether a prefix takes positions of the sequence, which a cache of fixed size cannot count."""
        return False

    def groups(self) -> tuple[str, ...]:
        """The parameter groups that exist under these options; each needs a learning rate."""
        return self.GROUPS

    def transferable_groups(self) -> dict[str, str]:
        """By group, what its tensors are: another method's group with the same words can start from them."""
        return {group: self.SAME.get(group, f"{group} of {type(self).__name__}") for group in self.groups()}

    def problems(self) -> list[str]:
        """Every impossible value or combination, one line each, with the remedy."""
        lines = []
        for kind in type(self).__mro__:
            for name, least in vars(kind).get("LEAST", {}).items():
                if getattr(self, name) < least:
                    lines.append(f"method.{name}={getattr(self, name)} is too small; it must be at least {least}")
            for name in vars(kind).get("POSITIVE", ()):
                if getattr(self, name) <= 0:
                    lines.append(f"method.{name}={getattr(self, name)} must be positive")
            for name in vars(kind).get("SHARES", ()):
                if not 0 <= getattr(self, name) < 1:
                    lines.append(f"method.{name}={getattr(self, name)} must lie from 0 to below 1")
        return lines

    def for_architecture(self, model_type: str) -> Self:
        """These options on a backbone of a known ``model_type``: what they leave to the architecture is filled in.

        Raises:
            ConfigError: The architecture cannot have what they ask for.
        """
        return self

    def _groups(self, **present: bool) -> tuple[str, ...]:
        """The groups, without those that are named as absent."""
        return tuple(group for group in self.GROUPS if present.get(group, True))

    def _without_effect(self, why: str, *names: str) -> list[str]:
        """Name the options that are set and have no effect."""
        return [
            f"method.{item.name}={getattr(self, item.name)} has no effect {why}; set method.{item.name}={item.default}"
            for item in fields(self)
            if item.name in names and getattr(self, item.name) != item.default
        ]


@dataclass(frozen=True)
class Start(MethodOptions):
    """Where a prefix or prompt starts from, as far as all methods with one share it."""

    LEAST: ClassVar[Mapping[str, int]] = {"num_virtual_tokens": 1, "init_std": 0}

    num_virtual_tokens: int = 10
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
        lines = super().problems()
        for init, option, remedy in (
            ("text", "init_text", 'a text; set method.init_text="..."'),
            ("adapter", "init_adapter", "a finished run; set method.init_adapter=RUN_DIR"),
        ):
            value = getattr(self, option)
            if self.init == init and not (value or "").strip():
                lines.append(f"method.init={init} needs {remedy}")
            if self.init != init and value is not None:
                lines.append(f"method.{option} has no effect with method.init={self.init}; set method.init={init}")
        return lines


@dataclass(frozen=True)
class RouterOptions(MethodOptions):
    """A router over R routes, from the mean word embedding (MMPT section 3; SMoP section 3)."""

    LEAST: ClassVar[Mapping[str, int]] = {"num_routes": 1, "top_k": 1, "router_noise": 0, "load_balance": 0}
    POSITIVE: ClassVar[tuple[str, ...]] = ("router_temperature",)
    SHARES: ClassVar[tuple[str, ...]] = ("router_dropout",)

    num_routes: int = 4
    top_k: int = 1
    perturb_router: bool = True
    router_noise: float = 1.0
    router_dropout: float = 0.2
    router_temperature: float = 1.0
    load_balance: float = 0.0

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems()
        if self.top_k > self.num_routes:
            lines.append(f"method.top_k={self.top_k} exceeds method.num_routes={self.num_routes}; choose at most that")
        return lines


@dataclass(frozen=True)
class InputRouterOptions(RouterOptions):
    """A router of which nothing trained changes what it reads, so that its statistics can be taken before training."""

    router_standardize: bool = False

    def transferable_groups(self) -> dict[str, str]:
        """See the base class."""
        read = f"router over the {'standardized ' if self.router_standardize else ''}{self.reads}"
        return {**super().transferable_groups(), "router": read}


@dataclass(frozen=True)
class LastLayers(MethodOptions):
    """The layers of each stack that a method acts on: all, or the last N."""

    layers: str = "all"

    def number_of(self, total: int, site: str) -> int:
        """How many of the ``total`` layers of a site's stack; a ConfigError where it has fewer than N."""
        number = total if self.layers == "all" else int(self.layers.removeprefix("last_"))
        if number > total:
            raise ConfigError(
                f"method.layers={self.layers}: site {site} of this backbone has {total} layers; give at most "
                f"last_{total}, or all"
            )
        return number

    def problems(self) -> list[str]:
        """See the base class."""
        lines = super().problems()
        if re.fullmatch(r"all|last_[1-9][0-9]*", self.layers) is None:
            lines.append(f"method.layers={self.layers} is not allowed; give all, or last_N with N from 1, as in last_4")
        return lines
