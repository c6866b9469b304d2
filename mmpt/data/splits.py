"""How train, validation and test come about. A group (the answers of one question) is never cut."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmpt.config.schema import DataConfig
from mmpt.data.columns import values
from mmpt.data.stored import StoredExamples
from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError

SPLITS = ("train", "validation", "test")
Examples = Sequence[Example]  # a tuple, or stored ones
Indices = np.ndarray  # (n,) int64


def held_out(examples: Examples, fraction: float, pick: str) -> tuple[Examples, Examples]:
    """Cut a validation split from the training split.

    Args:
        examples: The official training split, in file order.
        fraction: Share of every label (of all groups, where examples have groups) that becomes validation;
            rounded, at least one of every label that has two.
        pick: ``last``: the last ones in file order; ``random``: drawn by the data alone, so that the seeds of a
            study share one validation split.

    Returns:
        The remaining training examples and the validation examples, both in file order.
    """
    rng = random.Random(fingerprint({"train": examples}) if pick == "random" else None)
    chosen = np.zeros(len(examples), dtype=bool)
    groups = _members(values(examples, "group"))
    strata = _members(values(examples, "label")) if (None,) in groups else {(None,): np.arange(len(groups))}
    units = None if (None,) in groups else list(groups.values())
    for members in strata.values():
        if pick == "random":
            rng.shuffle(order := members.tolist())
            members = np.asarray(order)
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        last = members[len(members) - count :]
        for chosen_of in [last] if units is None else [units[member] for member in last]:
            chosen[chosen_of] = True
    return _select(examples, np.flatnonzero(~chosen)), _select(examples, np.flatnonzero(chosen))


def limit(examples: Examples, most: int | None) -> Examples:
    """The first examples of every label in proportion, in file order; of groups, the first whole ones.

    Args:
        examples: A split.
        most: How many to keep at most; None keeps all.
    """
    if most is None or len(examples) <= most:
        return examples
    if examples[0].group is not None:
        groups = list(_members(values(examples, "group")).values())
        total = np.cumsum([len(group) for group in groups])
        whole = max(1, int(np.searchsorted(total, most, side="right")))
        return _select(examples, np.sort(np.concatenate(groups[:whole])))
    share = np.empty(len(examples))
    for members in _members(values(examples, "label")).values():
        # How far into its label an example lies; the smallest shares keep every label's proportion.
        share[members] = (2 * np.arange(len(members)) + 1) / len(members)
    return _select(examples, np.sort(np.argsort(share, kind="stable")[:most]))


def _members(keys: Iterable[Hashable]) -> dict[Hashable, Indices]:
    """The indices that have each key, keys in order of appearance."""
    numbers: dict[Hashable, int] = {}
    codes = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), dtype=np.int32)
    bounds = np.cumsum(np.bincount(codes, minlength=len(numbers)))[:-1]
    return dict(zip(numbers, np.split(np.argsort(codes, kind="stable"), bounds), strict=True))


def _select(examples: Examples, indices: Indices) -> Examples:
    if isinstance(examples, StoredExamples):
        return examples.select(indices)
    return tuple(examples[index] for index in indices)


def cut(given: Mapping[str, Examples], data: DataConfig, as_given: bool) -> dict[str, Examples]:
    """Make the three splits from what the source gave, and apply the limits.

    Args:
        given: Split name to examples; for a held-out split ``train`` and one of ``validation``, ``test``.
        data: The configuration.
        as_given: Whether the three splits are used as they are.
    """
    splits = dict(given)
    if not as_given:
        test = splits["test"] if "test" in splits else splits["validation"]
        train, validation = held_out(splits["train"], data.validation_fraction, data.validation_pick)
        splits = {"train": train, "validation": validation, "test": test}
    limits = (data.limit_train, data.limit_validation, data.limit_test)
    return {name: limit(splits[name], most) for name, most in zip(SPLITS, limits, strict=True)}


def with_shots(task: Task, splits: Mapping[str, Examples], seed: int) -> tuple[Task, dict[str, Examples]]:
    """Put ``task.shots`` training examples and their answers before every text; they leave the training split.

    Args:
        task: The task.
        splits: The three splits after limits.
        seed: Of the draw.

    Returns:
        The task with these examples at the beginning of its template, and the splits.

    Raises:
        DataError: There are too few training examples.
    """
    train, count = splits["train"], task.config.shots
    if count >= len(train):
        raise DataError(f"task.shots={count} leaves none of {len(train)} training examples; lower it")
    drawn = random.Random(seed).sample(range(len(train)), count)
    text = "".join(f"{one.source} {one.target}\n\n" for one in (train[index] for index in drawn))
    template = text.replace("{", "{{").replace("}", "}}") + task.config.template
    rest = {**splits, "train": _select(train, np.setdiff1d(np.arange(len(train)), drawn))}
    prompted = {name: _after(text, examples) for name, examples in rest.items()}
    return Task(replace(task.config, template=template, shots=0)), prompted


def _after(text: str, examples: Examples) -> Examples:
    if isinstance(examples, StoredExamples):
        return examples.after(text)
    return tuple(replace(example, source=text + example.source) for example in examples)


def check(task: Task, splits: Mapping[str, Examples], origin: str) -> tuple[str, ...]:
    """Refuse splits that cannot be trained on or scored, and note what weakens a score.

    Args:
        task: The task.
        splits: The three splits after limits.
        origin: Where they come from, for messages.

    Returns:
        Notes for the run record, one line each.

    Raises:
        DataError: A split is empty, or train has one label only.
    """
    for name in SPLITS:
        if not splits[name]:
            raise DataError(
                f"{origin}: the {name} split is empty ({', '.join(f'{key} {len(splits[key])}' for key in SPLITS)}); "
                f"check task.files, data.limit_{name}"
                + (" and data.validation_fraction" if name == "validation" else "")
            )
    notes: list[str] = []
    if not task.free_text:
        notes += _label_notes(task, splits, origin)
    hashes = {name: _hashes(values(splits[name], "source")) for name in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if shared := int(np.isin(hashes[other], hashes[one]).sum()):
            notes.append(f"{shared} of {len(splits[other])} {other} examples read the same as one in {one}")
    first = np.unique(_hashes(values(splits["train"], "source", "target")), return_index=True)[1]
    if conflicts := int((np.unique(hashes["train"][first], return_counts=True)[1] > 1).sum()):
        notes.append(f"{conflicts} train texts occur with different targets")
    return tuple(notes)


def _hashes(values: Iterable[Hashable]) -> Indices:
    """64 bits of each value, in place of a set of millions of texts."""
    return np.fromiter(map(hash, values), dtype=np.int64)


def _label_notes(task: Task, splits: Mapping[str, Examples], origin: str) -> list[str]:
    known = {target for (target,) in values(splits["train"], "target")}
    if len(known) == 1:
        raise DataError(
            f'{origin}: all {len(splits["train"])} train examples have the one label "{next(iter(known))}"; '
            "two labels are needed (check the file's labels and data.limit_train)"
        )
    missing = [word for word in task.words if word not in known]
    return [f"no train example has the label {', '.join(missing)}"] if missing else []


def fingerprint(splits: Mapping[str, Sequence[Example]]) -> str:
    """Identity of the data as a model sees it.

    Args:
        splits: Split name to examples.

    Returns:
        Hex sha256 over split, source, target and group of every example, in order.
    """
    digest = hashlib.sha256()
    for name, examples in splits.items():
        for columns in values(examples, "source", "target", "group"):
            line = json.dumps([name, *columns])
            digest.update(line.encode("utf-8") + b"\n")
    return digest.hexdigest()
