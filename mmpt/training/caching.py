"""Where a run stores states below the first trained layer: on disk, in memory or nowhere, with lines for the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mmpt.cache.activations import SHARE, Activations, Batch, compute, fetch, free_bytes, key_of, tensors_of
from mmpt.cache.entry import lay_out
from mmpt.cache.store import Store
from mmpt.config.schema import CacheConfig
from mmpt.data.collate import IGNORED, one_source_a_row, source_rows
from mmpt.errors import CacheError, ConfigError
from mmpt.models.adapted import AdaptedModel
from mmpt.models.parts import word_embeddings
from mmpt.training.evaluate import Evaluator, Prepared
from mmpt.utils.machine import GB
from mmpt.utils.text import size_text


@dataclass
class SplitCache:
    """Runs the encoder, or a decoder's lower layers, once over a run's splits, where their states are constants."""

    config: CacheConfig  # the cache group
    model: AdaptedModel  # on the device that it trains on
    fingerprint: str  # of the backbone's weights
    name: str  # of the backbone, for people
    evaluator: Evaluator  # whose batches the states are computed in
    short: bool  # whether training ends before every example is seen
    note: Callable[[str], None]  # takes lines for the user

    def __post_init__(self) -> None:
        self._stack = "decoder" if self.model.injection.architecture.decoder_only else "encoder"
        self._store = Store(self.config.dir, self.config.max_gb)
        self._device: torch.device = word_embeddings(self.model.backbone).weight.device
        self._dtype = None if self.config.dtype == "model" else getattr(torch, self.config.dtype)

    def fill(self, *splits: Prepared) -> list[Prepared]:
        """The splits with their states, or as they were; the run's first lines say which, and why.

        Raises:
            CacheError: ``cache=disk`` is impossible: there is no room, or no permission.
            ConfigError: ``cache=disk`` or ``cache=ram`` is impossible because of another setting.
        """
        mode = self.config.mode
        reason = "cache=off" if mode == "off" else self.model.cacheable_layers.reason
        if reason is not None:
            if mode in ("ram", "disk"):
                raise ConfigError(f"cache={mode} is impossible: {reason}; set cache=auto or change that setting")
            return self._without(splits, reason)
        if mode == "auto" and self.short and not self._stored(splits[0]):
            training = self._without(splits[:1], "trainer.max_steps ends before every example is seen", " of training")
            return training + self._cached(splits[1:])  # evaluations read every example, and other trials do so again
        return self._cached(splits)

    def _cached(self, splits: tuple[Prepared, ...]) -> list[Prepared]:
        mode = self.config.mode
        self.model.backbone.eval()
        if mode == "ram":
            return self._in_memory(splits)
        try:
            return self._on_disk(splits)
        except CacheError as error:
            if mode == "disk":
                raise CacheError(
                    f"cache=disk is impossible: {error}; set cache.dir or cache.max_gb, free some, or set cache=ram"
                ) from error
            problem = str(error)
        needed = self._needed(splits)
        if needed > SHARE * free_bytes(self._device):
            self.note(f"cache: {problem}")
            return self._without(splits, f"it would take {needed / 1e9:.1f} GB of memory; cache=ram insists")
        self.note(f"cache: {problem}; memory is used instead")
        return self._in_memory(splits)

    def _without(self, splits: tuple[Prepared, ...], reason: str, part: str = "") -> list[Prepared]:
        self.note(f"{self._stack}: runs in every step{part} ({reason})")
        return list(splits)

    def _on_disk(self, splits: tuple[Prepared, ...]) -> list[Prepared]:
        """From the store, computed into it where missing; CacheError where there is no room, or no permission."""
        began = time.perf_counter()
        needed = self._needed(splits)
        if needed > self._store.max_bytes:  # said before anything is computed, not after two of three splits
            raise CacheError(
                f"the states of this run take {size_text(needed)}, more than cache.max_gb="
                f"{self._store.max_bytes / GB:g} allows in {self._store.directory}"
            )
        cached = [self._fetch(split) for split in splits]
        read = all(states.source is not None and states.source.read for states in cached)
        self._report(splits, f"in {self._store.directory}", began, read=read)
        if self._device.type != "cpu" and needed <= SHARE * free_bytes(self._device):
            cached = [states.to(self._device) for states in cached]
        return [replace(split, activations=states) for split, states in zip(splits, cached, strict=True)]

    def _fetch(self, split: Prepared) -> Activations:
        given = (self.model, split.lengths, self._batches(split), self._dtype)
        description = {
            "backbone": self.name,
            "task": self.evaluator.task.name,
            "examples": len(split.examples),
            "tokens": int(split.lengths.sum()),
            "layers": self.model.cacheable_layers.count,
        }
        return fetch(self._store, self._key(split), *given, description=description, note=self.note)

    def _in_memory(self, splits: tuple[Prepared, ...]) -> list[Prepared]:
        began = time.perf_counter()
        computed = [compute(self.model, split.lengths, self._batches(split), self._dtype) for split in splits]
        cached = [replace(split, activations=states) for split, states in zip(splits, computed, strict=True)]
        self._report(splits, "in memory", began)
        return cached

    def _report(self, splits: tuple[Prepared, ...], where: str, began: float, read: bool = False) -> None:
        layers, total = self.model.cacheable_layers.count, self.model.method.shape.first_stack.layers
        part = "" if layers == total else f" up to layer {layers} of {total}"
        size, seconds = f"{self._needed(splits) / 1e6:.1f} MB", time.perf_counter() - began
        dtype = "" if self.config.dtype == "model" else f" as {self.config.dtype}"
        if read:
            text = f"read from the cache{part}, {size}{dtype} {where}, verified in {seconds:.1f} s"
        else:
            text = f"ran once{part}, {size} cached{dtype} {where} in {seconds:.1f} s"
        self.note(f"{self._stack}: {text}")

    def _batches(self, split: Prepared) -> Iterator[Batch]:
        """Every source once, in the batches of an evaluation."""
        for rows, batch in self.evaluator.batches(split, self._device):
            yield source_rows(rows, batch), one_source_a_row(batch)

    def _stored(self, split: Prepared) -> bool:
        fits = self._needed((split,)) <= self._store.max_bytes  # else no key is needed, which reads all ids
        return fits and self._store.has(self._key(split))

    def _key(self, split: Prepared) -> str:
        batches: Iterable[Sequence[int]] = self.evaluator.cut(split)
        if split.key is None:
            inputs: Sequence[Any] = list(map(_read, split))
        else:  # what names all ids, and decides the batches
            inputs, batches = [[split.key, self.evaluator.config.batch_size]], [[0]]
        return key_of(self.model, self.fingerprint, inputs, batches, self._dtype)

    def _needed(self, splits: tuple[Prepared, ...]) -> int:
        return sum(lay_out(tensors_of(self.model, split.lengths, self._dtype))[2] for split in splits)


def _read(feature: Mapping[str, Any]) -> list[Any]:
    """All that is read of an example, as the key of its activations has it."""
    continuations = [token for ids in feature.get("continuations", ()) for token in (IGNORED, *ids)]
    return [*feature["input_ids"], *feature.get("token_type_ids", []), *continuations]
