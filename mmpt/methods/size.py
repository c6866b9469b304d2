"""A method that is too large is rejected before any of it is allocated: docs/security.md."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mmpt.errors import ConfigError
from mmpt.utils.memory import GB, memory_bytes
from mmpt.utils.untrusted import one_line


def refuse_parameters(make: Callable[[], nn.Module], name: str, most: int | None) -> None:
    """Reject a method that is too large.

    Args:
        make: Creates it; nothing is allocated.
        name: The method's.
        most: The most numbers that it may have; None: as many as memory holds.

    Raises:
        ConfigError: It has more, or cannot be made.
    """
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in make().parameters())
    except (RuntimeError, OverflowError, TypeError, MemoryError) as error:  # torch counts up to 2**63
        raise ConfigError(f"options of method={name} make no parameters ({one_line(error)[:200]})") from error
    if most is not None and count > most:
        raise ConfigError(f"options of method={name} describe {count:,} numbers, but only {most:,} are there")
    if 4 * count > memory_bytes():
        raise ConfigError(
            f"options of method={name} make {count:,} parameters, {4 * count / GB:.0f} GB in float32, and there are "
            f"{memory_bytes() / GB:.0f} GB of memory; choose fewer or shorter prefixes, prompts, routes or ranks"
        )
