"""What a method adds to a forward pass, what a backbone must tell it, and which layers it leaves constant.

Letters: B batch, T source tokens, d model width, L layers, H heads, k head width, P prefix or prompt tokens, R routes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """How many layers of the stack that reads the source run before anything trained has an effect.

    Attributes:
        count: Hidden states entering this layer are constants; all layers: the stack's output is one. None: nothing is.
        reason: Why nothing is.
    """

    count: int | None
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

    def cacheable_layers(self, shape: BackboneShape, who: str) -> CacheableLayers:
        """What this contribution leaves constant; ``who`` begins the reason."""
        if self.prompt is not None:
            return CacheableLayers(None, f"{who} puts a prompt before the text")
        if self.embedding_update is not None:
            return CacheableLayers(None, f"{who} changes the word embeddings")
        if self.layer_prompts is not None:
            return CacheableLayers(None, f"{who} puts prompts into the encoder's layers")
        site, total = shape.first_site, shape.first_stack.layers
        prefixed = self.prefixes[site].key.shape[1] if site in self.prefixes else 0
        prefixed = max(prefixed, int(site == "self"))  # where there is one stack, its last layer always runs
        if prefixed == total:
            return CacheableLayers(None, f"{who} has a prefix in every layer of site {site}")
        if any(prefix.shift for prefix in self.prefixes.values()):
            return CacheableLayers(None, f"{who} moves the text's positions in every layer")
        return CacheableLayers(total - prefixed)

    def check(self, shape: BackboneShape, rows: int | None, who: str) -> None:
        """Check all shapes.

        Args:
            shape: Of the backbone.
            rows: B, where it is known.
            who: Begins the message.

        Raises:
            ModelError: With the first wrong part, the expected shape and the actual one.
        """
        if unknown := [site for site in self.prefixes if site not in shape.sites]:
            sites = ", ".join(shape.sites)
            raise ModelError(f"{who}: {shape.architecture} models have no site {unknown[0]!r}; their sites are {sites}")
        for what, wanted, part in self._parts(shape):
            size = tuple(part.shape)
            fits = len(size) == len(wanted) and all(
                want is None or have in want for have, want in zip(size, wanted, strict=True)
            )
            if not fits:
                expected = ", ".join("any" if want is None else _range(want) for want in wanted)
                raise ModelError(f"{who}: {what} must have the shape ({expected}); got {size}")
            if rows is not None and len(wanted) > 2 and rows % size[0]:
                raise ModelError(f"{who}: {what} is for {size[0]} examples, but the batch has {rows}; give 1 or {rows}")

    def _parts(self, shape: BackboneShape) -> Iterator[tuple[str, tuple[range | None, ...], Tensor]]:
        """Each tensor with what it is called and its allowed sizes; None: any."""
        width = _only(shape.width)
        if self.prompt is not None:
            yield "its prompt (B or 1, P, d)", (None, None, width), self.prompt
        if self.embedding_update is not None:
            sizes = (None,) * (self.embedding_update.dim() - 1)
            yield "its embedding update (M, d) or (B, M, d)", (*sizes, width), self.embedding_update
        for site, prefix in self.prefixes.items():
            yield from _prefix_parts(site, shape.sites[site], prefix)


def _prefix_parts(
    site: str, shape: SiteShape, prefix: KeyValue
) -> Iterator[tuple[str, tuple[range | None, ...], Tensor]]:
    of = f"of its prefix at site {site}"
    layers = range(1, shape.layers + 1)
    yield f"key {of} (B or 1, L, H, P, k)", (None, layers, _only(shape.heads), None, _only(shape.head_dim)), prefix.key
    same = tuple(_only(size) for size in prefix.key.shape[1:])
    yield f"value {of}, as its key,", (None, *same), prefix.value
    layers, _, tokens = same[:3]
    for name, gate in (("key_gate", prefix.key_gate), ("value_gate", prefix.value_gate)):
        if gate is not None:
            either = range(1, shape.heads + 1, max(shape.heads - 1, 1))  # 1 or H
            yield f"{name} {of} (B or 1, L, H or 1, P)", (None, layers, either, tokens), gate
    if prefix.output_gate is not None:
        yield f"output_gate {of} (L,)", (layers,), prefix.output_gate


def _only(size: int) -> range:
    return range(size, size + 1)


def _range(sizes: range) -> str:
    return " or ".join(dict.fromkeys((str(sizes[0]), str(sizes[-1])))) if len(sizes) < 3 else f"1 to {sizes[-1]}"
