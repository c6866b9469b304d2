"""The words of the miniature world: kinds and classes, synonym pairs, words of two senses, causes and effects."""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """Read words that are set apart by spaces."""
    return tuple(text.split())


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Read ``'big/large small/tiny'`` as synonym pairs."""
    return tuple((pair.split("/")[0], pair.split("/")[1]) for pair in text.split())


KINDS: dict[str, tuple[str, ...]] = {
    "animal": listed("dog cat horse cow sheep goat pig fox wolf bear lion tiger rabbit deer frog duck"),
    "person": listed(
        "doctor nurse teacher farmer sailor baker pilot singer painter lawyer soldier tailor butcher waiter dentist "
        "miner"
    ),
    "machine": listed("car truck bus train boat plane tram van taxi ferry digger mixer"),
}
# One word form, two senses: an animal or a machine. Only the words around it tell.
AMBIGUOUS: tuple[str, ...] = listed(
    "crane mouse jaguar beetle seal bat ram mustang hornet cobra bug hawk kite spider falcon raven"
)
PLACES: dict[str, tuple[str, ...]] = {
    "outdoors": listed("garden park field forest beach street yard meadow"),
    "indoors": listed("kitchen bedroom hall office cellar attic library garage"),
}
# 'live' words fit animals and persons, 'dead' words fit machines, 'any' words fit all.
ADJECTIVES: dict[str, tuple[tuple[str, str], ...]] = {
    "any": pairs(
        "big/large small/tiny old/ancient new/modern clean/spotless dirty/filthy fast/quick slow/sluggish "
        "quiet/silent loud/noisy"
    ),
    "live": pairs("hungry/starving tired/weary angry/furious happy/glad brave/bold sick/ill"),
    "dead": pairs("rusty/tarnished broken/damaged heavy/weighty metal/steel electric/powered spare/extra"),
}
VERBS: dict[str, tuple[tuple[str, str], ...]] = {
    "live": pairs(
        "sleeping/napping eating/dining running/dashing hiding/lurking resting/relaxing crying/weeping "
        "playing/frolicking watching/staring washing/bathing drinking/sipping limping/hobbling waiting/lingering"
    ),
    "dead": pairs(
        "rusting/corroding stopping/halting turning/spinning leaking/dripping rattling/clanking humming/buzzing "
        "rolling/gliding cracking/splitting idling/ticking"
    ),
}
# What brings about what, by the first word of each synonym pair: cause -> event -> effect.
CHAINS: tuple[tuple[str, str, str], ...] = (
    ("running", "limping", "crying"),
    ("watching", "hiding", "waiting"),
    ("playing", "eating", "sleeping"),
    ("washing", "drinking", "resting"),
    ("rolling", "leaking", "rusting"),
    ("turning", "rattling", "cracking"),
    ("humming", "stopping", "idling"),
)
VERBS_OF: dict[str, frozenset[str]] = {life: frozenset(w for p in table for w in p) for life, table in VERBS.items()}
SLOTS = ("noun", "adjective", "verb", "place")

TWIN: dict[str, str] = {}
for _group in (*ADJECTIVES.values(), *VERBS.values()):
    for _first, _second in _group:
        TWIN[_first], TWIN[_second] = _second, _first
ABOVE: dict[str, str] = {word: kind for table in (KINDS, PLACES) for kind, words in table.items() for word in words}
HEAD: dict[str, str] = {
    word: pair[0] for group in (*ADJECTIVES.values(), *VERBS.values()) for pair in group for word in pair
}


def words() -> tuple[str, ...]:
    """Return every word of the world, in a fixed order."""
    return (*ABOVE, *KINDS, *PLACES, *AMBIGUOUS, *TWIN, "the", "is", "in", "and")


def kind_of(word: str) -> str | None:
    """Return the kind of a noun (``animal``) or the class of a place (``outdoors``), ``None`` for other words."""
    return ABOVE.get(word)


def twin(word: str) -> str:
    """Return the synonym of a verb or an adjective."""
    return TWIN[word]


def head(word: str) -> str:
    """Return the first word of the synonym pair that a verb or an adjective belongs to."""
    return HEAD[word]


def plain(word: str) -> str:
    """Return the plainest word for a word: the first of its synonym pair, its kind, or the word itself."""
    return HEAD.get(word) or ABOVE.get(word) or word
