"""The most bytes that a computation's tensors take at once, on any device, ``meta`` too."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode  # named by PyTorch's notes on extending it


class Peak(TorchDispatchMode):
    """Adds up the bytes of all tensors that exist, while operations run within the block.

    Attributes:
        most: Bytes at the worst moment so far.
    """

    def __init__(self, without: Iterable[Tensor] = ()) -> None:
        """Start from nothing; tensors ``without``, such as weights, do not count, and no view of them."""
        super().__init__()
        self.now = self.most = 0
        self._known = {id(storage): weakref.ref(storage) for storage in (each.untyped_storage() for each in without)}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See the base class."""
        result = function(*args, **(kwargs or {}))
        self.add(result if isinstance(result, tuple | list) else [result])
        return result

    def add(self, values: Iterable[Any]) -> None:
        """Count tensors that are new, until they are gone."""
        for value in values:
            if not isinstance(value, Tensor):
                continue
            storage = value.untyped_storage()
            if (known := self._known.get(id(storage))) is not None and known() is storage:
                continue
            self._known[id(storage)] = weakref.ref(storage)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._remove, storage.nbytes())
        self.most = max(self.most, self.now)

    def _remove(self, count: int) -> None:
        self.now -= count


class Fused(TorchFunctionMode):
    """Replaces torch's sdpa by what its fused kernels store, for which there is no kernel on the device ``meta``."""

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See the base class."""
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return _FusedAttention.apply(*args[:3], kwargs.get("attn_mask"))
        return function(*args, **kwargs)


class _FusedAttention(torch.autograd.Function):
    """Stores queries, keys, values, mask, results and one number for each query; never the table of scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, result, sums)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_ = ctx.saved_tensors
        return *(torch.empty_like(part) for part in (query, key, value)), None
