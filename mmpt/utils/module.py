"""A torch module that does not hide errors."""

from __future__ import annotations

from torch import Tensor, nn


class Module(nn.Module):
    """An ``nn.Module`` whose properties show an AttributeError that is raised inside them."""

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        """Called where the usual way raised AttributeError: torch would say that there is no property of this name."""
        if hasattr(type(self), name):
            found: Tensor | nn.Module = object.__getattribute__(self, name)  # once more, for its own error
            return found
        return super().__getattr__(name)
