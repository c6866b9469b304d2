"""Several methods in one pass: the rows of a batch choose an adapter each.

Letters: B rows of a batch, K methods, T tokens, d model width, L layers, H heads, P prefix or prompt tokens, k head
width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.attention.prefix import KeyValue, SiteShape, for_batch
from mmpt.errors import AdapterError, nearest
from mmpt.methods.base import Contribution, Method, mean_embedding


def stack(
    methods: Mapping[str, Method],
    names: Sequence[str],
    embeddings: Tensor,
    mask: Tensor | None,
    shapes: Mapping[str, SiteShape],
) -> Contribution:
    """What each row's own method adds to it.

    There is a name for each of N examples; B is a multiple of N, an example's rows together. Of embeddings (B, T, d) a
    mask (B, T) has what is read, None: everything; ``shapes`` is the backbone's attention by site, as everywhere below.
    AdapterError: a name is unknown, there are more or fewer than rows, or the adapters cannot share a pass.
    """
    own = _rows_by_name(methods, names, len(embeddings))
    mask = embeddings.new_ones(embeddings.shape[:2]) if mask is None else mask
    parts = [
        methods[name](mean_embedding(embeddings[rows], mask[rows]) if methods[name].reads_input else None)
        for name, rows in own.items()
    ]
    try:
        joined = join(parts, [len(rows) for rows in own.values()], shapes, embeddings)
    except ValueError as error:
        raise AdapterError(f"adapters {', '.join(own)} cannot share a batch: {error}; run them one by one") from error
    order = torch.tensor([row for rows in own.values() for row in rows], device=embeddings.device).argsort()
    return _ordered(joined, order)


def _rows_by_name(methods: Mapping[str, Method], names: Sequence[str], rows: int) -> dict[str, list[int]]:
    """The rows of each adapter; raises where the adapters cannot share a pass."""
    if not names or rows % len(names):
        raise AdapterError(f"adapter_names has {len(names)} names for {rows} rows; give one for each row")
    for name in names:
        if name not in methods:
            raise AdapterError(f"no adapter {name!r}; this model has {', '.join(methods)}{nearest(name, methods)}")
    names = [name for name in names for _ in range(rows // len(names))]
    own = {name: [row for row, other in enumerate(names) if other == name] for name in dict.fromkeys(names)}
    for name in own:
        if (reason := runs_alone_because(methods[name])) is not None:
            raise AdapterError(f"adapter {name!r} cannot share a batch with others: {reason}; run its rows separately")
    return own


def runs_alone_because(method: Method) -> str | None:
    """Why a method cannot share a pass with any other; None where it may be able to."""
    if method.changes_backbone():
        return f"method={method.options.name} changes the backbone's own layers"
    if method.has_head:
        return "it has a classification head of its own, which lies in the model"
    if method.options.reads != "embedding":
        return "its router reads hidden states"
    return None


def passes(methods: Mapping[str, Method], shapes: Mapping[str, SiteShape]) -> list[list[str]]:
    """Which methods can share a pass, by name: as few passes as their order allows."""
    shared: list[list[str]] = []
    for name in methods:
        for members in shared:
            if _shareable([methods[each] for each in (*members, name)], shapes):
                members.append(name)
                break
        else:
            shared.append([name])
    return shared


def _shareable(methods: Sequence[Method], shapes: Mapping[str, SiteShape]) -> bool:
    if any(runs_alone_because(method) is not None for method in methods):
        return False
    parts = [method.probe() for method in methods]
    like = next((value for method in methods for value in method.parameters()), torch.empty(0))
    try:
        join(parts, [1] * len(parts), shapes, like)
    except ValueError:
        return False
    return True


def join(
    parts: Sequence[Contribution], rows: Sequence[int], shapes: Mapping[str, SiteShape], like: Tensor
) -> Contribution:
    """One contribution of those of K methods, each with a number of ``rows``, on the device of ``like``.

    ValueError: prefixes have output gates or attend functions, or differ in layers, positions, or with positions in
    length; or one has prompts in every layer.
    """
    if any(part.layer_prompts is not None for part in parts):
        raise ValueError("one has prompts in every layer of the encoder")
    prefixes = {
        site: _join_site([part.prefixes.get(site) for part in parts], rows, shape, like)
        for site, shape in shapes.items()
        if any(site in part.prefixes for part in parts)
    }
    prompt, lengths = _join_rows([part.prompt for part in parts], rows)
    update, _ = _join_rows([part.embedding_update for part in parts], rows)
    return Contribution(prefixes, prompt, None if lengths is None else lengths.to(like.device), update)


def _join_rows(parts: Sequence[Tensor | None], rows: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
    """Tables (B or 1, N, d) or (N, d) one after another, padded with zeros to the longest N, and each row's N."""
    given = next((part for part in parts if part is not None), None)
    if given is None:
        return None, None
    tables = [given.new_zeros(1, 0, given.shape[-1]) if part is None else part for part in parts]
    tables = [table.unsqueeze(0) if table.dim() == 2 else table for table in tables]
    lengths = torch.tensor([table.shape[1] for table in tables]).repeat_interleave(torch.tensor(rows))
    return _one_after_another(tables, rows, dim=-2), lengths


def _one_after_another(parts: Sequence[Tensor], rows: Sequence[int], dim: int) -> Tensor:
    """Tensors (G, …), each repeated for its rows, and padded with zeros along ``dim``, -1 or -2."""
    longest = max(part.shape[dim] for part in parts)
    counted = zip(parts, rows, strict=True)
    before = [0, 0] * (-1 - dim)
    return torch.cat(
        [F.pad(for_batch(part, count), (*before, 0, longest - part.shape[dim])) for part, count in counted]
    )


def _join_site(prefixes: Sequence[KeyValue | None], rows: Sequence[int], shape: SiteShape, like: Tensor) -> KeyValue:
    """One site's prefixes, each for its rows; a method without a prefix there gets one of padding alone."""
    given = [prefix for prefix in prefixes if prefix is not None]
    _refuse(given, whole=len(given) == len(prefixes))
    layers, longest = given[0].key.shape[1], max(prefix.key.shape[3] for prefix in given)
    nothing = torch.zeros(1, layers, shape.heads, 0, shape.head_dim, device=like.device)
    every = [KeyValue(nothing, nothing) if prefix is None else prefix for prefix in prefixes]
    key = _one_after_another([prefix.key for prefix in every], rows, dim=-2)
    value = _one_after_another([prefix.value for prefix in every], rows, dim=-2)
    opened = torch.ones(1, layers, 1, longest, device=like.device)
    key_gate = _join_gates([prefix.key_gate for prefix in every], rows, opened)
    value_gate = _join_gates([prefix.value_gate for prefix in every], rows, opened)
    lengths = torch.tensor([prefix.key.shape[3] for prefix in every], device=like.device)
    real = None
    if any(prefix.key.shape[3] < longest for prefix in every):
        lengths = lengths.repeat_interleave(torch.tensor(rows, device=like.device))
        real = torch.arange(longest, device=like.device) < lengths.unsqueeze(1)
    return KeyValue(key, value, given[0].positioned, key_gate, value_gate, real, shift=given[0].shift)


def _refuse(prefixes: Sequence[KeyValue], *, whole: bool) -> None:
    if any(prefix.output_gate is not None for prefix in prefixes):
        raise ValueError("a prefix has a gate of its output")
    if any(prefix.attend is not None for prefix in prefixes):
        raise ValueError("a prefix has an attend function of its own")
    if len({prefix.positioned for prefix in prefixes}) > 1:
        raise ValueError("some prefixes have positions and some have none (layouts paper and per_layer)")
    if len({prefix.shift for prefix in prefixes} | (set() if whole else {0})) > 1:
        raise ValueError("their prefixes shift the text by different numbers of positions")
    if len({prefix.key.shape[1] for prefix in prefixes}) > 1:
        raise ValueError("their prefixes are in different layers")
    if prefixes[0].positioned and (not whole or len({prefix.key.shape[3] for prefix in prefixes}) > 1):
        raise ValueError("prefixes with positions (layout paper) differ in length")


def _join_gates(gates: Sequence[Tensor | None], rows: Sequence[int], opened: Tensor) -> Tensor | None:
    """(B, L, H or 1, P), ``opened`` where a method has no gate; None where none has."""
    if all(gate is None for gate in gates):
        return None
    heads = max(gate.shape[2] for gate in gates if gate is not None)
    parts = [(opened if gate is None else gate).expand(-1, -1, heads, -1) for gate in gates]
    return _one_after_another(parts, rows, dim=-1)


def _ordered(joined: Contribution, order: Tensor) -> Contribution:
    """A contribution with its rows in another order."""

    def moved(parts: Any, *names: str) -> Any:
        return replace(parts, **{name: part[order] for name in names if (part := getattr(parts, name)) is not None})

    tensors = ("key", "value", "key_gate", "value_gate", "real")
    prefixes = {site: moved(prefix, *tensors) for site, prefix in joined.prefixes.items()}
    ordered: Contribution = moved(joined, "prompt", "prompt_lengths", "embedding_update")
    return replace(ordered, prefixes=prefixes)
