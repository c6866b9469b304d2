"""How train, validation and test come about. A group (the answers of one question) is never cut."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction

from mmpt.config.schema import DataConfig
from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError

SPLITS = ("train", "validation", "test")
Examples = tuple[Example, ...]


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
    strata: dict[Hashable, dict[Hashable, list[int]]] = {}
    for index, example in enumerate(examples):
        stratum, unit = (None, example.group) if example.group is not None else (example.label, index)
        strata.setdefault(stratum, {}).setdefault(unit, []).append(index)
    rng = random.Random(fingerprint({"train": examples}))
    chosen: set[int] = set()
    for units in strata.values():
        members = list(units.values())
        if pick == "random":
            rng.shuffle(members)
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        chosen.update(index for unit in members[len(members) - count :] for index in unit)
    train = tuple(example for index, example in enumerate(examples) if index not in chosen)
    return train, tuple(examples[index] for index in sorted(chosen))


def limit(examples: Examples, most: int | None) -> Examples:
    """The first examples of every label in proportion, in file order; of groups, the first whole ones.

    Args:
        examples: A split.
        most: How many to keep at most; None keeps all.
    """
    if most is None or len(examples) <= most:
        return examples
    if examples[0].group is not None:
        return _first_groups(examples, most)
    totals, seen = Counter(example.label for example in examples), Counter[int | None]()
    ranked: list[tuple[Fraction, int]] = []
    for index, example in enumerate(examples):
        # How far into its label an example lies; the smallest shares keep every label's proportion. Exact
        # fractions, so that no platform breaks a tie differently.
        ranked.append((Fraction(2 * seen[example.label] + 1, totals[example.label]), index))
        seen[example.label] += 1
    return tuple(examples[index] for index in sorted(index for _, index in sorted(ranked)[:most]))


def _first_groups(examples: Examples, most: int) -> Examples:
    chosen: set[str | None] = set()
    total = 0
    for group, size in Counter(example.group for example in examples).items():
        if chosen and total + size > most:
            break
        chosen.add(group)
        total += size
    return tuple(example for example in examples if example.group in chosen)


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
    sources = {name: {example.source for example in splits[name]} for name in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = sum(example.source in sources[one] for example in splits[other])
        if shared:
            notes.append(f"{shared} of {len(splits[other])} {other} examples read the same as one in {one}")
    targets: dict[str, set[str | None]] = {}
    for example in splits["train"]:
        targets.setdefault(example.source, set()).add(example.target)
    conflicts = sum(len(different) > 1 for different in targets.values())
    if conflicts:
        notes.append(f"{conflicts} train texts occur with different targets")
    return tuple(notes)


def _label_notes(task: Task, splits: Mapping[str, Examples], origin: str) -> list[str]:
    known = {example.target for example in splits["train"]}
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
        for example in examples:
            line = json.dumps([name, example.source, example.target, example.group])
            digest.update(line.encode("utf-8") + b"\n")
    return digest.hexdigest()
