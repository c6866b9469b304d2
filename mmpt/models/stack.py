"""Several methods on one backbone in one pass: their examples stacked over the batch, each group with its own prefix.

Letters: K methods, B rows of one method, L layers, H heads, P prefix tokens, k head width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.attention.prefix import KeyValue, SiteShape, for_batch
from mmpt.methods.base import Contribution
from mmpt.models.adapted import Encoded
from mmpt.models.label_states import stack_continued, stack_states


def stack(parts: Sequence[Encoded], shapes: dict[str, SiteShape]) -> Encoded:
    """Stack batches of K methods.

    Args:
        parts: Batches behind the same frozen encoder; what methods contribute is prefixes alone.
        shapes: The backbone's attention by site.

    Returns:
        One batch, whose rows are those of the parts in order.

    Raises:
        ValueError: A part changes the encoder's input, a prefix has a gate of its output or an attention of its own,
            prefixes with and without position meet, those with one differ in length, or prefixes differ in layers.
    """
    given = [part.contribution for part in parts]
    if any(item is not None for each in given for item in (each.prompt, each.embedding_update, each.layer_prompts)):
        raise ValueError("prompts and updates of embeddings can't be stacked: they pass through the encoder")
    rows = [part.states.shape[0] for part in parts]
    states = stack_states([part.states for part in parts])
    mask = torch.cat([F.pad(part.mask, (0, states.shape[1] - part.mask.shape[1])) for part in parts])
    prefixes = stack_prefixes([part.contribution for part in parts], rows, shapes, states)
    return Encoded(states, mask, Contribution(prefixes), stack_continued([part.continued for part in parts]))


def stack_prefixes(
    contributions: Sequence[Contribution], rows: Sequence[int], shapes: Mapping[str, SiteShape], like: Tensor
) -> dict[str, KeyValue]:
    """Stack what K methods put into attention, by site.

    Args:
        contributions: What each method adds to its rows.
        rows: How many rows each has.
        shapes: The backbone's attention by site.
        like: A tensor on the device to use.

    Raises:
        ValueError: Prefixes have output gates, differ in layers or in having positions, or with them in length.
    """
    sites = sorted({site for contribution in contributions for site in contribution.prefixes})
    return {
        site: _stack_site([each.prefixes.get(site) for each in contributions], rows, shapes[site], like)
        for site in sites
    }


def stackable(contributions: Sequence[Contribution], shapes: Mapping[str, SiteShape]) -> bool:
    """Whether :func:`stack_prefixes` takes these."""
    try:
        stack_prefixes(contributions, [1] * len(contributions), shapes, torch.empty(0))
    except ValueError:
        return False
    return True


def _stack_site(prefixes: Sequence[KeyValue | None], rows: Sequence[int], shape: SiteShape, like: Tensor) -> KeyValue:
    """One site's prefixes, each for its rows; a method without a prefix there gets one of padding alone."""
    if any(prefix is not None and prefix.output_gate is not None for prefix in prefixes):
        raise ValueError("prefixes with a gate of their output can't be stacked")
    if any(prefix is not None and prefix.attend is not None for prefix in prefixes):
        raise ValueError("prefixes with an attention of their own cannot be stacked")
    if len({prefix.positioned for prefix in prefixes if prefix is not None}) > 1:
        raise ValueError("prefixes with and without position (layouts paper and per_layer) can't be stacked")
    shifts = {0 if prefix is None else prefix.shift for prefix in prefixes}
    if len(shifts) > 1:
        raise ValueError("prefixes that shift the text by different numbers of positions can't be stacked")
    layers = {prefix.key.shape[1] for prefix in prefixes if prefix is not None}
    if len(layers) > 1:
        raise ValueError(f"prefixes in different layers can't be stacked; got the last {sorted(layers)}")
    shape = replace(shape, layers=layers.pop())
    lengths = [0 if prefix is None else prefix.key.shape[3] for prefix in prefixes]
    if len(set(lengths)) > 1 and any(prefix is not None and prefix.positioned for prefix in prefixes):
        raise ValueError(f"prefixes with positions must have one length to be stacked; got {lengths}")
    longest = max(lengths)
    found = [prefix if prefix is not None else _empty(shape, like) for prefix in prefixes]
    whole = len(set(rows)) == 1 and all(prefix.key.shape[0] == 1 for prefix in found)
    key, value = (
        torch.cat(
            [
                F.pad(part if whole else for_batch(part, count), (0, 0, 0, longest - part.shape[3]))
                for part, count in zip(parts, rows, strict=True)
            ]
        )
        for parts in ([prefix.key for prefix in found], [prefix.value for prefix in found])
    )
    key_gate = _stack_gates([prefix.key_gate for prefix in found], rows, shape.layers, longest, like)
    value_gate = _stack_gates([prefix.value_gate for prefix in found], rows, shape.layers, longest, like)
    real = None
    if len(set(lengths)) > 1:
        places = torch.arange(longest, device=like.device)
        real = (places < torch.tensor(lengths, device=like.device)[:, None]).repeat_interleave(
            torch.tensor(rows, device=like.device), dim=0
        )
    positioned = any(prefix.positioned for prefix in found)
    return KeyValue(key, value, positioned, key_gate, value_gate, real, shift=shifts.pop())


def _empty(shape: SiteShape, like: Tensor) -> KeyValue:
    nothing = torch.zeros(1, shape.layers, shape.heads, 0, shape.head_dim, device=like.device)
    return KeyValue(nothing, nothing)


def _stack_gates(
    gates: Sequence[Tensor | None], rows: Sequence[int], layers: int, longest: int, like: Tensor
) -> Tensor | None:
    """(sum of B, L, H or 1, P), ones where a method has no gate; None where none has."""
    if all(gate is None for gate in gates):
        return None
    heads = max(gate.shape[2] for gate in gates if gate is not None)
    open_gate = torch.ones(1, layers, heads, longest, device=like.device)
    return torch.cat(
        [
            for_batch(
                open_gate if gate is None else F.pad(gate.expand(-1, -1, heads, -1), (0, longest - gate.shape[3])),
                count,
            )
            for gate, count in zip(gates, rows, strict=True)
        ]
    )
