"""How much of something described there may be, told before any of it is allocated: docs/security.md."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.initialization import no_init_weights

from mmpt.errors import ConfigError, ModelError
from mmpt.utils.untrusted import one_line

MOST = {"layer": 1000, "label": 100_000}  # by a word in the name of a setting: Python counts these one by one
GB = 10**9


def memory_bytes() -> int:
    """Bytes that this process may fill: the machine's memory, or a lower limit of its control group or of its own."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    own = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(found if own == resource.RLIM_INFINITY else [*found, own])


def refuse_parameters(make: Callable[[], nn.Module], name: str, most: int | None) -> None:
    """Refuse a method that is too large.

    Args:
        make: Creates it; nothing is allocated.
        name: The method's.
        most: Numbers that there are; None: as many as memory holds.

    Raises:
        ConfigError: It has more, or can't be made.
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


def refuse_counts(settings: Mapping[str, Any], where: str) -> None:
    """Refuse layers and labels beyond all reason, before a configuration or a network is made of them.

    Args:
        settings: Of a network, as its config.json or ``model.config`` has them.
        where: How to call them in an error.

    Raises:
        ModelError: One is too many.
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            refuse_counts(value, where)
        for word, most in MOST.items():
            if word in str(name) and isinstance(value, int | float) and value > most:
                raise ModelError(f"{where}: {name}={str(value)[:40]} is too large; at most {most} can be")


def refuse_network(config: PreTrainedConfig, kind: Any, dtype: torch.dtype, where: str) -> None:
    """Refuse a network that memory can't hold.

    Args:
        config: Its shape.
        kind: transformers' Auto class.
        dtype: Of its weights.
        where: How to call it in an error.

    Raises:
        ModelError: It is too large, or no network can be made of it.
    """
    shape = deepcopy(config)
    shape._attn_implementation = "eager"
    try:
        with torch.device("meta"), no_init_weights():
            network = kind.from_config(shape, trust_remote_code=False)
    except Exception as error:  # of transformers and torch, for a shape that can't be
        raise ModelError(f"{where} makes no network ({one_line(error)})") from error
    size = sum(parameter.numel() for parameter in network.parameters()) * dtype.itemsize
    if size > memory_bytes():
        raise ModelError(
            f"{where} describes {size / GB:.0f} GB of weights, and there are {memory_bytes() / GB:.0f} GB of memory; "
            "choose a smaller model, or model.dtype=bfloat16"
        )
