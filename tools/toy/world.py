"""A miniature world: who is how, does what, where, in words that have synonyms, kinds and, for some, two senses.

A fact has up to four slots: *the big dog is sleeping in the garden*. Its noun is always there, its verb too; adjective
and place may be missing. What follows from a fact (synonyms, kinds, fewer slots) and what contradicts it (one slot
with another word) is known exactly, so that tasks with right answers can be drawn in any number. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tools.toy.lexicon import (
    ABOVE,
    ADJECTIVES,
    KINDS,
    PLACES,
    SLOTS,
    TWIN,
    VERBS,
    head,
)


@dataclass(frozen=True)
class Fact:
    """One statement; ``life`` says which verbs and adjectives its noun takes."""

    noun: str
    verb: str
    adjective: str | None = None
    place: str | None = None
    life: str = "live"

    def get(self, slot: str) -> str | None:
        """Return the word in a slot of :data:`SLOTS`, ``None`` where it is missing."""
        value: str | None = getattr(self, slot)
        return value

    def put(self, slot: str, word: str | None) -> Fact:
        """Return a copy with another word in a slot."""
        if word is None and slot in ("noun", "verb"):
            raise ValueError(f"a fact has a {slot}")
        changes: dict[str, Any] = {slot: word}
        return replace(self, **changes)

    def subject(self) -> str:
        """Return *the big dog*."""
        return f"the {self.noun}" if self.adjective is None else f"the {self.adjective} {self.noun}"

    def where(self) -> str:
        """Return *in the garden*, *outdoors*, or the empty string."""
        if self.place is None:
            return ""
        return self.place if self.place in PLACES else f"in the {self.place}"

    def text(self) -> str:
        """Return *the big dog is sleeping in the garden*."""
        return f"{self.subject()} is {self.verb} {self.where()}".rstrip()

    def question(self) -> str:
        """Return *is the big dog sleeping in the garden*."""
        return f"is {self.subject()} {self.verb} {self.where()}".rstrip()


def draw(rng: Random, kinds: Sequence[str] = tuple(KINDS), adjective: float = 0.6, place: float = 0.7) -> Fact:
    """Draw a fact.

    Args:
        rng: Source of randomness.
        kinds: Kinds its noun may be of.
        adjective: Probability that it has an adjective.
        place: Probability that it has a place.
    """
    kind = rng.choice(kinds)
    life = "dead" if kind == "machine" else "live"
    return Fact(
        noun=rng.choice(KINDS[kind]),
        verb=any_verb(rng, life),
        adjective=any_adjective(rng, life) if rng.random() < adjective else None,
        place=any_place(rng) if rng.random() < place else None,
        life=life,
    )


def any_verb(rng: Random, life: str) -> str:
    """Draw a verb that fits ``life``."""
    return rng.choice(rng.choice(VERBS[life]))


def any_adjective(rng: Random, life: str) -> str:
    """Draw an adjective that fits ``life``."""
    return rng.choice(rng.choice(ADJECTIVES["any" if rng.random() < 0.6 else life]))


def any_place(rng: Random) -> str:
    """Draw a place."""
    return rng.choice(PLACES[rng.choice(tuple(PLACES))])


def weaken_word(rng: Random, word: str, strength: float = 0.7) -> str:
    """Replace a word, with probability ``strength``, by one that is true as well: a synonym, a kind, a class."""
    if rng.random() >= strength:
        return word
    return TWIN[word] if word in TWIN else ABOVE.get(word, word)


def weaken(rng: Random, fact: Fact, strength: float = 0.7, drop: float = 0.25, keep: str | None = None) -> Fact:
    """Return a fact that follows from ``fact``: words replaced, optional slots (but not ``keep``) dropped."""
    weaker = fact
    for slot in SLOTS:
        word = fact.get(slot)
        if word is None:
            continue
        dropped = slot in ("adjective", "place") and slot != keep and rng.random() < drop
        weaker = weaker.put(slot, None if dropped else weaken_word(rng, word, strength))
    return weaker


def wrong_word(rng: Random, fact: Fact, slot: str, strength: float = 0.7) -> str:
    """Draw a word for a slot that clashes with ``fact``, as often weakened (a kind, a class) as a true one would be."""
    word = str(fact.get(slot))
    if slot in ("verb", "adjective"):
        fresh = any_verb if slot == "verb" else any_adjective
        return next(w for w in iter(lambda: fresh(rng, fact.life), "") if head(w) != head(word))
    table = KINDS if slot == "noun" else PLACES
    pool = [w for members in table.values() for w in members if w != word and ABOVE[w] != word]
    other = [kind for kind in table if kind not in (word, ABOVE.get(word))]
    return rng.choice(other) if rng.random() < strength else rng.choice(pool)


def pair(rng: Random, fact: Fact, true: bool, strength: float = 0.7, slots: Sequence[str] = SLOTS) -> tuple[Fact, str]:
    """Return a claim that follows from ``fact``, or clashes with it in one slot, and that slot.

    True and false claims have the same shapes, so that a claim alone doesn't tell.

    Args:
        rng: Source of randomness.
        fact: What is given.
        true: Whether the claim follows.
        strength: Probability that a word is replaced by a synonym or its kind.
        slots: Where a clash may be.
    """
    slot = rng.choice([name for name in slots if fact.get(name) is not None])
    claim = weaken(rng, fact, strength, keep=slot)
    return (claim if true else claim.put(slot, wrong_word(rng, fact, slot, strength))), slot


def passage(rng: Random, size: int) -> list[Fact]:
    """Draw facts about nouns of different kinds (``size`` at most 3)."""
    return [draw(rng, [kind], adjective=0.45, place=0.75) for kind in rng.sample(tuple(KINDS), size)]


def swap(rng: Random, facts: Sequence[Fact], index: int) -> tuple[Fact, str] | None:
    """Alter a fact of a passage with a word that is true of another fact there, so that only binding tells.

    Returns:
        The false fact and its slot, or ``None`` where no other fact has a fitting word.
    """
    fact = facts[index]
    found: list[tuple[str, str]] = []
    for slot in ("adjective", "verb", "place"):
        own = fact.get(slot)
        for word in (other.get(slot) for other in facts if other is not fact):
            if word is None or own is None or covers(word, own):
                continue
            # Places of one class would have to be named exactly, true ones need not: the claim alone would tell.
            if ABOVE.get(word) != ABOVE.get(own) if slot == "place" else _takes(fact.life, word):
                found.append((slot, word))
    if not found:
        return None
    slot, word = rng.choice(found)
    return weaken(rng, fact, keep=slot).put(slot, weaken_word(rng, word)), slot


def _takes(life: str, word: str) -> bool:
    """Whether a noun that is ``life`` takes this adjective or verb."""
    return any(word in pair for table in (ADJECTIVES, VERBS) for pair in (*table.get("any", ()), *table[life]))


def sense(rng: Random, noun: str, life: str, cues: int = 1) -> Fact:
    """Draw a fact about an ambiguous noun in one sense (``live`` animal or ``dead`` machine).

    Args:
        rng: Source of randomness.
        noun: A word of :data:`AMBIGUOUS`.
        life: The sense.
        cues: 1: the verb tells; 2: a telling adjective too.
    """
    adjective: str | None = None
    if cues > 1:
        adjective = rng.choice(rng.choice(ADJECTIVES[life]))
    elif rng.random() < 0.5:
        adjective = rng.choice(rng.choice(ADJECTIVES["any"]))
    return Fact(noun, any_verb(rng, life), adjective, any_place(rng) if rng.random() < 0.5 else None, life)


def covers(general: str | None, special: str | None) -> bool:
    """Whether saying ``general`` is true where ``special`` holds: the same word, its synonym, its kind, or nothing."""
    if general is None or general == special:
        return True
    return special is not None and (TWIN.get(special) == general or ABOVE.get(special) == general)


def follows(claim: Fact, facts: Sequence[Fact]) -> bool:
    """Whether a claim is true by one of the facts."""
    return any(all(covers(claim.get(slot), fact.get(slot)) for slot in SLOTS) for fact in facts)
