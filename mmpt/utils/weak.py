"""A reference that does not keep its object alive, and copies and pickles as a plain one does. Imports no torch."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Weak(Generic[T]):
    """What an object refers back to its owner by, so that the owner is freed with its last user."""

    def __init__(self, value: T) -> None:
        """Refer to ``value``."""
        self._reference = weakref.ref(value)

    def __call__(self) -> T:
        """The value, which must be alive."""
        value = self._reference()
        assert value is not None
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of the owner is what its copied reference refers to."""
        return Weak, (self(),)
