"""A sweep over every combination of values (``hydra/sweeper=basic``)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hydra.core.override_parser.types import Override


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """The words of each trial; of two words with one key the last is used, and the last key changes fastest."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        texts = (
            override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_element_as_str()]
        )
        key = override.get_key_element()
        values[key] = [f"{key}={text}" for text in texts]
    return [list(trial) for trial in itertools.product(*values.values())]
