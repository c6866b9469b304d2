"""What a method adds to a forward pass, what a backbone must tell it, and which layers it leaves constant.

Letters: B batch, T source tokens, d model width, L layers, H heads, k head width, P prefix or prompt tokens, R routes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from mmpt.attention.prefix import KeyValue, SiteShape
from mmpt.errors import ModelError


@dataclass(frozen=True)
class BackboneShape:
    """What a method must know of a backbone: width d of word embeddings, and the attention of each site."""

    width: int
    sites: Mapping[str, SiteShape]
    architecture: str = "t5"  # its config.model_type
    hidden: int | None = None  # width of hidden states, where it is not that of word embeddings

    @property
    def state_width(self) -> int:
        """Width of hidden states."""
        return self.width if self.hidden is None else self.hidden

    @property
    def first_site(self) -> str:
        """The site whose stack reads the source: the encoder, or the only one."""
        return "encoder" if "encoder" in self.sites else "self"

    @property
    def first_stack(self) -> SiteShape:
        """The attention of the stack that reads the source."""
        return self.sites[self.first_site]


@dataclass(frozen=True)
class CacheableLayers:
    """How many layers of the stack that reads the source run before anything trained has an effect."""

    # hidden states entering this layer are constants; all layers: the stack's output is one. None: nothing is
    count: int | None
    reason: str | None = None  # why nothing is


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

    def cacheable_layers(self, shape: BackboneShape, who: str) -> CacheableLayers:
        """What this contribution leaves constant; ``who`` begins the reason."""
        for part, what in (
            (self.prompt, "puts a prompt before the text"),
            (self.embedding_update, "changes the word embeddings"),
            (self.layer_prompts, "puts prompts into the encoder's layers"),
        ):
            if part is not None:
                return CacheableLayers(None, f"{who} {what}")
        site, total = shape.first_site, shape.first_stack.layers
        prefixed = self.prefixes[site].key.shape[1] if site in self.prefixes else 0
        prefixed = max(prefixed, int(site == "self"))  # where there is one stack, its last layer always runs
        if prefixed == total:
            return CacheableLayers(None, f"{who} has a prefix in every layer of site {site}")
        if any(prefix.shift for prefix in self.prefixes.values()):
            return CacheableLayers(None, f"{who} moves the text's positions in every layer")
        return CacheableLayers(total - prefixed)

    def check(self, shape: BackboneShape, rows: int | None, who: str) -> None:
        """Check all shapes, for B ``rows`` where that is known; ``who`` begins the message.

        Raises:
            ModelError: With the first wrong part, the expected shape and the actual one.
        """
        if unknown := [site for site in self.prefixes if site not in shape.sites]:
            sites = ", ".join(shape.sites)
            raise ModelError(f"{who}: {shape.architecture} models have no site {unknown[0]!r}; their sites are {sites}")
        sizes: dict[str, Sequence[int]] = {"d": [shape.width]}
        if rows is not None:
            sizes["B"] = [size for size in range(1, rows + 1) if rows % size == 0]
        _require(f"{who}: its prompt", self.prompt, "B P d", sizes)
        update = self.embedding_update
        letters = "B M d" if update is not None and update.dim() == 3 else "M d"
        _require(f"{who}: its embedding update", update, letters, sizes)
        for site, prefix in self.prefixes.items():
            at, of = shape.sites[site], f"of its prefix at site {site}"
            sizes |= {"L": range(1, at.layers + 1), "H": [at.heads], "h": sorted({1, at.heads}), "k": [at.head_dim]}
            sizes.pop("P", None)
            _require(f"{who}: key {of}", prefix.key, "B L H P k", sizes)
            sizes |= {"L": [prefix.key.shape[1]], "P": [prefix.key.shape[3]]}
            shapes = {"value": "B L H P k", "key_gate": "B L h P", "value_gate": "B L h P", "output_gate": "L"}
            for name, letters in shapes.items():
                _require(f"{who}: {name} {of}", getattr(prefix, name), letters, sizes)


def _require(what: str, part: Tensor | None, letters: str, sizes: Mapping[str, Sequence[int]]) -> None:
    """Compare a tensor's sizes with the allowed ones of each letter; letters without any may have every size."""
    wanted = letters.split()
    if part is None or (
        part.dim() == len(wanted)
        and all(size in sizes.get(name, (size,)) for name, size in zip(wanted, part.shape, strict=True))
    ):
        return
    joint = {name: " to " if isinstance(choice, range) else " or " for name, choice in sizes.items()}
    ends = {name: dict.fromkeys((choice[0], choice[-1])) for name, choice in sizes.items()}
    allowed = {name: f" = {joint[name].join(map(str, ends[name]))}" for name in sizes}
    expected = ", ".join(f"{name}{allowed.get(name, '')}" for name in wanted)
    raise ModelError(f"{what} must have the shape ({expected}); got {tuple(part.shape)}")
