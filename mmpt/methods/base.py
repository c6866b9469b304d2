"""What a method is: parameters in named groups, and what it adds to a forward pass.

The trainer knows no method by name, and a method knows nothing of tasks. Letters: B batch, T source tokens, d model
width, L layers, H heads, k head width, P prefix or prompt tokens, R routes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmpt.attention.inject import KeyValue, SiteShape
from mmpt.errors import ConfigError
from mmpt.methods.options import HEAD, MethodOptions, Start


@dataclass(frozen=True)
class BackboneShape:
    """What a method must know of a backbone: width d of word embeddings, and the attention of each site."""

    width: int
    sites: Mapping[str, SiteShape]
    architecture: str = "t5"  # its config.model_type
    hidden: int | None = None  # width of hidden states, where it isn't that of word embeddings

    @property
    def state_width(self) -> int:
        """Width of hidden states."""
        return self.width if self.hidden is None else self.hidden

    @property
    def first_stack(self) -> SiteShape:
        """The attention of the stack that reads the source: the encoder, or the only one."""
        return self.sites["encoder" if "encoder" in self.sites else "self"]


@dataclass(frozen=True)
class Frontier:
    """Where the first trained part lies.

    Attributes:
        layers: Hidden states entering layer n of the first stack are constants; all layers: its output is one. None:
            nothing is.
        reason: The setting because of which nothing is.
    """

    layers: int | None
    reason: str | None = None


class LayerPrompts(Protocol):
    """Prompts of P tokens for every layer of the encoder, each in place of what the layer below made of its own."""

    tokens: int

    def at(self, layer: int, states: Tensor, mask: Tensor) -> Tensor:
        """The prompt (B, P, d) of a layer, from the text's states (B, T, d) that enter it and their mask (B, T)."""

    def finish(self, contribution: Contribution) -> Contribution:
        """The contribution, with what was worked out along the way."""


@dataclass(frozen=True)
class Contribution:
    """What a method adds to one forward pass."""

    prefixes: Mapping[str, KeyValue] = field(default_factory=dict)  # by site
    prompt: Tensor | None = None  # (B or 1, P, d), before the encoder's input embeddings
    prompt_lengths: Tensor | None = None  # (B,), where rows have prompts of different lengths, up to P
    embedding_update: Tensor | None = None  # (M, d) or (B, M, d), added to the first M word embeddings of each source
    layer_prompts: LayerPrompts | None = None
    route_probs: Tensor | None = None  # (B, R), for the logs
    auxiliary_loss: Tensor | None = None  # (), added to the mean loss of the batch while training


class Recorder(Protocol):
    """Runs the frozen backbone on sampled vocabulary or a text, for ``init=vocab`` and ``init=text``."""

    def embeddings(self, ids: Tensor) -> Tensor:
        """Word embeddings (P, d) of token ids (P,)."""

    def keys_values(self, ids: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Keys and values of token ids (P,) at every site, each (L, H, P, k)."""

    def sample(self, count: int) -> Tensor:
        """Draw ids (P,) of ordinary vocabulary tokens."""

    def text(self, text: str, count: int) -> Tensor:
        """The first ids (P,) of a text, which is repeated where it has fewer."""


class Method(nn.Module):
    """Base of every method. Its parameters are all trainable, and each belongs to one group."""

    def __init__(self, options: MethodOptions, shape: BackboneShape) -> None:
        """Keep the options and the backbone's shape; subclasses create their parameters."""
        super().__init__()
        self.options: Any = options
        self.shape = shape
        self._borrowed: dict[str, nn.Parameter] = {}

    @property
    def reads_input(self) -> bool:
        """Whether :meth:`forward` needs a mean of the source."""
        return False

    @property
    def reads_encoder(self) -> bool:
        """Whether that is the mean of the encoder's output, which nothing trained then reaches."""
        return False

    @property
    def trains_all(self) -> bool:
        """Whether every weight of the backbone is trained."""
        return False

    @property
    def prompts_layers(self) -> bool:
        """Whether each layer of the encoder gets a prompt, so that what is added depends on the layer's states."""
        return False

    @property
    def changes_encoder(self) -> str | None:
        """The setting by which the encoder's output depends on trained parameters; None where it is a constant."""
        return None

    @property
    def frontier(self) -> Frontier:
        """How many layers of the stack that reads the source run before anything trained has an effect."""
        reason = self.changes_encoder
        return Frontier(self.shape.first_stack.layers if reason is None else None, reason)

    @classmethod
    def changes_backbone(cls) -> bool:
        """Whether the method changes the backbone itself, so that no other adapter can share that backbone."""
        return cls.attach is not Method.attach

    def initialise(self, recorder: Recorder) -> None:
        """Take starting values from the backbone, where the options ask for it."""

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
        return self.borrowed(HEAD)

    def borrowed(self, group: str) -> dict[str, nn.Parameter]:
        """The borrowed parameters of a group."""
        start = f"{group}."
        return {name.removeprefix(start): value for name, value in self._borrowed.items() if name.startswith(start)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by learning-rate group: the group is the first part of a parameter's name."""
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in self.options.groups()}
        for name, parameter in self.named_parameters():
            groups.setdefault(name.split(".")[0], []).append(parameter)
        return groups

    def forward(self, mean: Tensor | None) -> Contribution:
        """Build what this batch gets.

        Args:
            mean: Mean word embedding of each source (B, d), float32 (:func:`mean_embedding`), or that of the encoder's
                output where ``reads_encoder``; None where ``reads_input`` is false.

        Returns:
            The contribution; an example's part depends on that example alone.
        """
        raise NotImplementedError

    def mask_values(self) -> dict[str, Tensor]:
        """Token × layer masks by site for the logs, each (R, S, L) in 0..1 after the sigmoid."""
        return {}

    def folded(self) -> tuple[MethodOptions, dict[str, Tensor]]:
        """Options and tensors of the saved adapter; what only training needs is folded away."""
        return self.options, {name: parameter.detach() for name, parameter in self.named_parameters()}

    def in_peft(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The adapter in peft's own format: configuration and tensors by name; None for methods that aren't peft's."""
        return None


def starting_ids(options: Start, recorder: Recorder, count: int) -> Tensor | None:
    """Ids (P,) whose embeddings, or keys and values, are the starting values; None where no ids are asked for.

    Raises:
        ConfigError: ``method.init_text`` has no ordinary piece.
    """
    if options.init == "text":
        return recorder.text(options.init_text or "", count)
    return recorder.sample(count) if options.init == "vocab" else None


def mean_embedding(embeddings: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean embedding, or state, over unmasked tokens: (B, T, d) and (B, T) give (B, d), float32."""
    mask = attention_mask.to(torch.float32)
    total = torch.einsum("bt,btd->bd", mask, embeddings.to(torch.float32))
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
