"""Where a run keeps the encoder's states: on disk, in memory, or nowhere, and what it says about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from mmpt.cache.activations import SHARE, compute, fetch, free_bytes, key_of, tensors_of
from mmpt.cache.directory import size_text
from mmpt.cache.entry import bytes_of
from mmpt.cache.store import GB, Store
from mmpt.config.schema import CacheConfig
from mmpt.errors import CacheError, ConfigError
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import word_embeddings
from mmpt.training.evaluate import Evaluator, Prepared


@dataclass
class SplitCache:
    """Runs the encoder once over a run's splits, where its states are constants.

    Attributes:
        config: The ``cache`` group.
        model: On the device that it trains on.
        fingerprint: Of the backbone's weights.
        name: Of the backbone, for people.
        evaluator: Whose batches the states are computed in.
        short: Whether training ends before every example is seen.
        note: Takes lines for the user.
    """

    config: CacheConfig
    model: AdaptedModel
    fingerprint: str
    name: str
    evaluator: Evaluator
    short: bool
    note: Callable[[str], None]

    def fill(self, *splits: Prepared) -> list[Prepared]:
        """The splits with their states, or as they were; the run's first lines say which, and why.

        Raises:
            CacheError: ``cache=disk`` can't be had for want of room or rights.
            ConfigError: ``cache=disk`` or ``cache=ram`` can't be had because of another setting.
        """
        mode = self.config.mode
        reason = "cache=off" if mode == "off" else self.model.prevents_cache
        if reason is None and mode == "auto" and self.short and not all(map(self._stored, splits)):
            reason = "trainer.max_steps ends before every example is seen"
        if reason is None:
            self.model.backbone.eval()
            cached = self._on_disk(splits) if mode != "ram" else None
            if cached is not None:
                return cached
            needed = sum(self._bytes(split) for split in splits)
            if mode == "ram" or needed <= SHARE * free_bytes(self._device):
                return self._in_memory(splits)
            reason = f"it would take {needed / 1e9:.1f} GB of memory; cache=ram insists"
        if mode in ("ram", "disk"):
            raise ConfigError(f"cache={mode} can't be had: {reason}; set cache=auto or change that setting")
        self.note(f"encoder: runs in every step ({reason})")
        return list(splits)

    def _on_disk(self, splits: tuple[Prepared, ...]) -> list[Prepared] | None:
        """From the store, computed into it where missing; None where ``auto`` has to do without it."""
        began = time.perf_counter()
        try:
            self._refuse_too_large(splits)
            cached = [self._fetch(split) for split in splits]
        except CacheError as error:
            if self.config.mode == "disk":
                raise CacheError(
                    f"cache=disk can't be had: {error}; set cache.dir or cache.max_gb, free some, or set cache=ram"
                ) from error
            self.note(f"cache: {error}; memory is used instead")
            return None
        read = all(split.activations and split.activations.source and split.activations.source.read for split in cached)
        needed = sum(self._bytes(split) for split in splits)
        self._tell(needed, f"in {self._store.directory}", began, read=read)
        if self._device.type != "cpu" and needed <= SHARE * free_bytes(self._device):
            cached = [replace(split, activations=split.activations.to(self._device)) for split in cached]  # type: ignore[union-attr]
        return cached

    def _refuse_too_large(self, splits: tuple[Prepared, ...]) -> None:
        """Say so before anything is computed, not after two of three splits.

        Raises:
            CacheError: The splits together are more than the bound.
        """
        needed = sum(self._bytes(split) for split in splits)
        if needed > self._store.max_bytes:
            raise CacheError(
                f"the states of this run take {size_text(needed)}, more than cache.max_gb="
                f"{self._store.max_bytes / GB:g} allows in {self._store.directory}"
            )

    def _fetch(self, split: Prepared) -> Prepared:
        batches = self.evaluator.batches(split, self._device)
        task = self.evaluator.task.name
        description = {"backbone": self.name, "task": task, "examples": len(split.examples)}
        description |= {"tokens": sum(split.lengths), "layers": self.model.frontier.layers}
        key = self._key(split)
        found = fetch(
            self._store, key, self.model, split.lengths, batches, self._dtype, description=description, note=self.note
        )
        return replace(split, activations=found)

    def _in_memory(self, splits: tuple[Prepared, ...]) -> list[Prepared]:
        began = time.perf_counter()
        cached = []
        for split in splits:
            batches = self.evaluator.batches(split, self._device)
            cached.append(replace(split, activations=compute(self.model, split.lengths, batches, self._dtype)))
        self._tell(sum(self._bytes(split) for split in splits), "in memory", began)
        return cached

    def _tell(self, needed: int, where: str, began: float, read: bool = False) -> None:
        layers, total = self.model.frontier.layers, self.model.method.shape.sites["encoder"].layers
        part = "" if layers == total else f" up to layer {layers} of {total}"
        seconds = time.perf_counter() - began
        dtype = "" if self.config.dtype == "model" else f" as {self.config.dtype}"
        if read:
            text = f"read from the cache{part}, {needed / 1e6:.1f} MB{dtype} {where}, verified in {seconds:.1f} s"
        else:
            text = f"ran once{part}, {needed / 1e6:.1f} MB cached{dtype} {where} in {seconds:.1f} s"
        self.note(f"encoder: {text}")

    def _stored(self, split: Prepared) -> bool:
        return self._store.has(self._key(split))

    def _key(self, split: Prepared) -> str:
        inputs = [feature["input_ids"] for feature in split.features]
        return key_of(self.model, self.fingerprint, inputs, self.evaluator.cut(split), self._dtype)

    def _bytes(self, split: Prepared) -> int:
        return bytes_of(tensors_of(self.model, split.lengths, self._dtype))

    @cached_property
    def _store(self) -> Store:
        return Store(self.config.dir, self.config.max_gb)

    @property
    def _dtype(self) -> torch.dtype | None:
        name = self.config.dtype
        return None if name == "model" else getattr(torch, name)

    @property
    def _device(self) -> torch.device:
        return word_embeddings(self.model.backbone).weight.device
