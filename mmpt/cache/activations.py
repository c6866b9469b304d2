"""The activation cache: what lies before the first trainable parameter is computed once.

With nothing trained below some layer of the first stack (:class:`mmpt.methods.contribution.CacheableLayers`), and no
dropout in the frozen network, the hidden states entering that layer and the mean word embedding that routers read are
constants of backbone, tokenizer, text and length. They are computed once and serve every epoch and evaluation, from
memory or through a map of a file (:mod:`mmpt.cache.store`). Padding is not stored.

Letters: B batch, N examples, T tokens, d model width, n layers below the first trained layer.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from mmpt.attention.inject import running_attention
from mmpt.cache.entry import Draft, Mapped, Tensors
from mmpt.cache.store import Store
from mmpt.errors import ConfigError
from mmpt.models.adapted import AdaptedModel
from mmpt.models.parts import word_embeddings

FORMAT = 2  # raise it when the same inputs come to mean other states
SHARE = 0.5  # of the memory that is free
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # by safetensors' name
KINDS = {dtype: kind for kind, dtype in TYPES.items()}
Lengths = Sequence[int] | np.ndarray
Batch = tuple[Sequence[int], Mapping[str, Tensor]]  # rows, and their input_ids and attention_mask (B, T)


@dataclass(frozen=True)
class Activations:
    """Hidden states of N examples without padding, and their mean word embeddings."""

    states: Tensor  # (sum of T, d), as they are stored
    starts: np.ndarray  # (N + 1,) int64, first rows; example n has rows starts[n] to starts[n + 1]
    means: Tensor  # (N, d), float32
    dtype: torch.dtype  # what batch gives states in, the backbone's
    source: Mapped | None = None  # the mapped entry that they lie in; None in memory

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """``states`` (B, T, d), zero where padded, and ``means`` (B, d) of some examples."""
        longest = int(max(self.starts[row + 1] - self.starts[row] for row in rows))
        padded = self.states.new_zeros(len(rows), longest, self.states.shape[1], dtype=self.dtype)
        for index, row in enumerate(rows):
            first, last = self.starts[row], self.starts[row + 1]
            padded[index, : last - first] = self.states[first:last]
        return {"states": padded, "means": self.means[rows]}

    def to(self, device: torch.device) -> Activations:
        """The same in a device's memory."""
        return Activations(self.states.to(device), self.starts, self.means.to(device), self.dtype)

    def __reduce__(self) -> Any:
        """Let a data worker of another process map the file itself instead of getting a copy."""
        if self.source is not None:
            return _reopen, (self.source.path, self.starts, self.dtype)
        return Activations, (self.states, self.starts, self.means, self.dtype)


@torch.no_grad()
def _rows(
    model: AdaptedModel, starts: np.ndarray, batches: Iterable[Batch], dtype: torch.dtype
) -> Iterator[tuple[str, int, Tensor]]:
    """Run the network up to the first trained layer: name of a tensor, first row, and rows of it."""
    if model.cacheable_layers.count is None:
        raise ValueError(f"nothing is constant: {model.cacheable_layers.reason}")
    model.injection.set({})
    for rows, batch in batches:
        states = model.constants(batch)
        means = model.mean_embeddings(batch)
        for index, row in enumerate(rows):
            yield "means", row, means[index : index + 1]
            first, last = starts[row : row + 2].tolist()
            yield "states", first, _cast(states[index, : last - first], dtype)


def compute(
    model: AdaptedModel, lengths: Lengths, batches: Iterable[Batch], stored: torch.dtype | None = None
) -> Activations:
    """Compute a split's activations in memory, on the model's device.

    Nothing depends on the model's method. ``lengths`` are the states of each of the N sources: its tokens, and for
    decoder-only models those of its continuations; ``batches`` have every row once, on the model's device; ``stored``
    is the type of what is stored, None: as the backbone computes it. ConfigError: a value does not fit it.
    """
    weight = word_embeddings(model.backbone).weight
    tensors = {
        name: torch.empty(shape, dtype=TYPES[kind], device=weight.device)
        for name, (kind, shape) in tensors_of(model, lengths, stored).items()
    }
    starts = _starts(lengths)
    for name, row, block in _rows(model, starts, batches, stored or weight.dtype):
        tensors[name][row : row + len(block)] = block
    return Activations(tensors["states"], starts, tensors["means"], weight.dtype)


def fetch(
    store: Store,
    key: str,
    model: AdaptedModel,
    lengths: Lengths,
    batches: Iterable[Batch],
    stored: torch.dtype | None = None,
    description: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = print,
) -> Activations:
    """Map a split's activations from a store, computed into it first if there is no entry of this ``key``.

    Other arguments are those of :func:`compute`; ``description`` is what the entry is of, for people, and ``note``
    shows lines about damage and waiting. CacheError: the directory cannot be written, or has too little room.
    ConfigError: a value does not fit ``stored``.
    """
    dtype, starts = word_embeddings(model.backbone).weight.dtype, _starts(lengths)

    def write(draft: Draft) -> None:
        for name, row, block in _rows(model, starts, batches, stored or dtype):
            draft.put(name, row, block.cpu().contiguous().view(torch.uint8).numpy().data)

    mapped = store.fetch(key, tensors_of(model, lengths, stored), write, description or {}, note)
    return _activations(mapped, starts, dtype)


def tensors_of(model: AdaptedModel, lengths: Lengths, stored: torch.dtype | None = None) -> Tensors:
    """Types and shapes of a split's activations."""
    weight = word_embeddings(model.backbone).weight
    return {
        "means": ("F32", (len(lengths), weight.shape[1])),
        "states": (KINDS[stored or weight.dtype], (int(np.sum(lengths)), model.width)),
    }


def key_of(
    model: AdaptedModel,
    fingerprint: str,
    inputs: Sequence[Sequence[int]],
    batches: Iterable[Sequence[int]],
    stored: torch.dtype | None = None,
) -> str:
    """Name what a split's activations depend on, to the last bit, by a SHA-256 in hexadecimal.

    Args:
        model: Architecture, dtype, attention and cacheable layers count; not what the method has learned.
        fingerprint: Of the backbone's weights.
        inputs: Token ids of every source, and what else it is read with; they stand for tokenizer, template and length.
        batches: Rows that are computed together: the last bits depend on them.
        stored: See :func:`compute`.
    """
    weight = word_embeddings(model.backbone).weight
    config = model.backbone.config.to_dict()
    parts = {
        "format": FORMAT,
        "weights": fingerprint,
        "config": {name: value for name, value in config.items() if name not in ("_name_or_path", "name_or_path")},
        "attention": running_attention(model.backbone),
        "dtype": str(weight.dtype),
        "stored": str(stored or weight.dtype),
        "layers": model.cacheable_layers.count,
        "device": weight.device.type,
        "processor": torch.backends.cpu.get_cpu_capability(),  # it decides how sums are split
        "precision": (torch.backends.cuda if weight.is_cuda else torch.backends.mkldnn).matmul.fp32_precision,
        "versions": [torch.__version__, transformers.__version__],
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for rows in batches:
        digest.update(json.dumps([[row, list(inputs[row])] for row in rows]).encode())
    return digest.hexdigest()


def _starts(lengths: Lengths) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that are free where the cache would lie."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cast(block: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows as they are stored; ConfigError where a finite value becomes infinite."""
    values = block.to(dtype)
    if dtype == torch.float16 and block.dtype != dtype and not torch.isfinite(values).all():
        raise ConfigError(
            f"cache.dtype=float16 cannot hold this backbone's states (up to {block.abs().max().item():.3g}, it ends at "
            "65504); set cache.dtype=bfloat16 or cache.dtype=model"
        )
    return values


def _activations(mapped: Mapped, starts: np.ndarray, dtype: torch.dtype) -> Activations:
    tensors = {}
    with warnings.catch_warnings():  # the map cannot be written to, and nothing tries
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        for name, span in mapped.spans.items():
            flat = torch.frombuffer(
                mapped.buffer, dtype=TYPES[span.kind], count=math.prod(span.shape), offset=span.first
            )
            tensors[name] = flat.view(span.shape)
    return Activations(tensors["states"], starts, tensors["means"], dtype, mapped)


def _reopen(path: Path, starts: np.ndarray, dtype: torch.dtype) -> Activations:
    """Map an entry in another process; its content was verified by the one that sent it here."""
    return _activations(Mapped.reopen(path), starts, dtype)
