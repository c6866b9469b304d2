"""What a method is: parameters in named groups, and what it adds to a forward pass.

The trainer knows no method by name, and a method knows nothing of tasks. Letters: B batch, T source tokens, d model
width, L layers, H heads, k head width, P prefix or prompt tokens, R routes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from mmpt.errors import ConfigError, ModelError
from mmpt.methods.contribution import BackboneShape, CacheableLayers, Contribution, LayerPrompts
from mmpt.methods.options import HEAD, MethodOptions, Start
from mmpt.methods.router import Router
from mmpt.utils.module import Module

__all__ = ["BackboneShape", "CacheableLayers", "Contribution", "LayerPrompts", "Method", "StartingValues"]
__all__ += ["mean_embedding", "saved_tensors", "start_prompt", "starting_ids"]


class StartingValues(Protocol):
    """Runs the frozen backbone on sampled vocabulary or a text, for ``init=vocab`` and ``init=text``."""

    def embeddings(self, ids: Tensor) -> Tensor:
        """Word embeddings (P, d) of token ids (P,)."""

    def keys_values(self, ids: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Keys and values of token ids (P,) at every site, each (L, H, P, k)."""

    def sample(self, count: int) -> Tensor:
        """Draw ids (P,) of ordinary vocabulary tokens."""

    def text(self, text: str, count: int) -> Tensor:
        """The first ids (P,) of a text, which is repeated where it has fewer."""


class Method(Module):
    """Base of every method. Its parameters are all trainable, and each belongs to one group."""

    NEEDS_EVERY_GRADIENT: ClassVar[bool] = True  # whether a parameter without a gradient is a mistake
    constant: int = 0  # how many layers run before the first one that attach, if it changes the backbone, has changed

    def __init__(self, options: MethodOptions, shape: BackboneShape) -> None:
        """Keep the options and the backbone's shape; subclasses create their parameters."""
        super().__init__()
        self.options: Any = options
        self.shape = shape
        self._borrowed: dict[str, nn.Parameter] = {}
        self.register_forward_hook(_check)

    @property
    def reads_input(self) -> bool:
        """Whether :meth:`forward` needs a mean of the source."""
        return False

    @classmethod
    def changes_backbone(cls) -> bool:
        """Whether the method changes the backbone itself, so that no other adapter can share that backbone."""
        return cls.attach is not Method.attach

    @cached_property
    def cacheable_layers(self) -> CacheableLayers:
        """Derived from what the method contributes; every later pass is checked against it."""
        who = f"method={self.options.name}"
        if self.changes_backbone():
            reason = None if self.constant else f"{who} changes the backbone's own layers"
            return CacheableLayers(self.constant or None, reason)
        return self.probe().cacheable_layers(self.shape, who)

    @torch.no_grad()
    def probe(self) -> Contribution:
        """What the method contributes to some input, in evaluation mode; torch's generator is left as it is."""
        device = next((parameter.device for parameter in self.parameters()), None)
        width = self.shape.width if self.options.reads == "embedding" else self.shape.state_width
        mean = torch.zeros(1, width, device=device) if self.reads_input else None
        modes = {module: module.training for module in self.modules()}
        with torch.random.fork_rng(devices=[]):
            try:
                contribution: Contribution = self.eval()(mean)
            finally:
                for module, mode in modes.items():
                    module.training = mode
        return contribution

    def initialise(self, backbone: StartingValues) -> None:
        """Take starting values from the backbone, where the options ask for it."""

    @property
    def standardizing(self) -> Router | None:
        """The router that takes mean and standard deviation of the training texts before the first step, if any."""
        return next((module for module in self.modules() if isinstance(module, Router) and module.standardizes), None)

    def attach(self, backbone: nn.Module, name: str = "default") -> None:
        """Change the backbone itself, as the adapter ``name``, for methods that live in it. By default nothing."""

    def detach(self, backbone: nn.Module) -> None:
        """Undo :meth:`attach`; the backbone's own parameters are then as they were."""

    def activate(self, on: bool) -> None:
        """Let what :meth:`attach` put into the backbone work or rest. The default has nothing to do."""

    def merge(self, backbone: nn.Module) -> None:
        """Let the backbone's own weights do what the method does, and undo :meth:`attach`.

        Raises:
            ConfigError: No weight of the backbone can hold what the method adds.
        """
        raise ConfigError(
            f"method={self.options.name} cannot be merged: it adds keys, values or embeddings to each pass, which no "
            "weight of the backbone can hold; keep the adapter, and save it with mmpt.save_adapter"
        )

    def attach_head(self, head: Mapping[str, nn.Parameter]) -> None:
        """Take over a classification head, which is trained with every method, as the group ``head``."""
        self.borrow({f"{HEAD}.{name.replace('.', '/')}": value for name, value in head.items()})
        for value in head.values():
            value.requires_grad_(True)

    def borrow(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Train parameters that lie in the backbone, under names that begin with their group.

        They are among the method's parameters, but not registered with it: in the backbone's state they are once.
        """
        known = {id(parameter) for parameter in self._borrowed.values()}
        self._borrowed |= {name: value for name, value in parameters.items() if id(value) not in known}

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The method's own parameters, and those that it borrows."""
        yield from super().named_parameters(prefix, recurse, remove_duplicate)
        start = f"{prefix}." if prefix else ""
        yield from ((f"{start}{name}", parameter) for name, parameter in self._borrowed.items())

    @property
    def has_head(self) -> bool:
        """Whether a classification head is trained along."""
        return bool(self.head)

    @property
    def head(self) -> dict[str, nn.Parameter]:
        """Parameters of the classification head, by their names in the backbone with ``/`` for ``.``."""
        start = f"{HEAD}."
        return {name.removeprefix(start): value for name, value in self._borrowed.items() if name.startswith(start)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by learning-rate group: the group is the first part of a parameter's name.

        Raises:
            ModelError: A declared group has no parameter, or a parameter is in no declared group.
        """
        who, declared = f"method={self.options.name}", self.options.groups()
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in declared}
        for name, parameter in self.named_parameters():
            group = name.split(".")[0]
            if group not in (*declared, HEAD):
                raise ModelError(
                    f"{who}: parameter {name} is in group {group!r}, which the options do not declare; groups(): "
                    f"{', '.join(declared)}"
                )
            groups.setdefault(group, []).append(parameter)
        if empty := [name for name, parameters in groups.items() if not parameters]:
            raise ModelError(
                f"{who}: group {empty[0]!r} has no parameter; its tensors must be nn.Parameter, and the first part of "
                f"their names {empty[0]!r}"
            )
        return groups

    def forward(self, mean: Tensor | None) -> Contribution:
        """Build what this batch gets.

        Args:
            mean: Mean word embedding of each source (B, d), float32 (:func:`mean_embedding`), or that of the states
                that ``options.reads`` names; None where ``reads_input`` is false.

        Returns:
            The contribution; an example's part depends on that example alone.
        """
        raise NotImplementedError

    def mask_values(self) -> dict[str, Tensor]:
        """Token × layer masks by site for the logs, each (R, S, L) in 0..1 after the sigmoid."""
        return {}

    def folded(self) -> tuple[MethodOptions, dict[str, Tensor]]:
        """Options and tensors of the saved adapter; what only training needs is folded away."""
        return self.options, {name: value.detach() for name, value in saved_tensors(self).items()}

    def in_peft(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The adapter in peft's own format: configuration and tensors by name; None for methods that are not peft's."""
        return None


def _check(method: nn.Module, args: tuple[Any, ...], contribution: Any) -> None:
    """Check the shapes of a contribution, and that it changes no layer that the probe left constant."""
    assert isinstance(method, Method)
    who, rows = f"method={method.options.name}", None if not args or args[0] is None else len(args[0])
    if not isinstance(contribution, Contribution):
        raise ModelError(f"{who}: forward must return a Contribution; got {type(contribution).__name__}")
    contribution.check(method.shape, rows, who)
    constant = contribution.cacheable_layers(method.shape, who)
    expected: CacheableLayers | None = method.__dict__.get("cacheable_layers")
    layers = -1 if constant.count is None else constant.count
    if expected is not None and expected.count is not None and layers < expected.count:
        raise ModelError(
            f"{who} changes more layers in this pass than in its first one ({constant.reason or layers}); a "
            "contribution must have the same parts in every pass"
        )
    if method.options.reads == "encoder" and layers != method.shape.first_stack.layers:
        raise ModelError(f"{who} reads the encoder's output, so it cannot change the encoder")


def saved_tensors(module: nn.Module) -> dict[str, Tensor]:
    """What a method is made of, by name: parameters, and constants that it took from the training texts (buffers)."""
    kept = module.state_dict().keys()  # without buffers that are not persistent
    return {
        **dict(module.named_parameters()),
        **{name: value for name, value in module.named_buffers() if name in kept},
    }


def starting_ids(options: Start, backbone: StartingValues, count: int) -> Tensor | None:
    """Ids (P,) whose embeddings, or keys and values, are the starting values; None where the options need no ids.

    ConfigError: ``method.init_text`` has no ordinary piece.
    """
    if options.init == "text":
        return backbone.text(options.init_text or "", count)
    return backbone.sample(count) if options.init == "vocab" else None


def start_prompt(table: nn.Parameter, options: Start, backbone: StartingValues) -> None:
    """Let a table of prompts (P, d) start from word embeddings, where the options ask for it."""
    if (ids := starting_ids(options, backbone, table.shape[0])) is not None:
        table.data.copy_(backbone.embeddings(ids))


def mean_embedding(embeddings: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean embedding, or state, over unmasked tokens: (B, T, d) and (B, T) give (B, d), float32."""
    mask = attention_mask.to(torch.float32)
    total = torch.einsum("bt,btd->bd", mask, embeddings.to(torch.float32))
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
