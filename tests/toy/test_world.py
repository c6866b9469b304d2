"""The miniature world: what follows follows, what clashes doesn't."""

from __future__ import annotations

from random import Random

import pytest

from tools.toy import lexicon, skills, world
from tools.toy.lexicon import SLOTS
from tools.toy.world import Fact


def test_every_word_has_one_meaning() -> None:
    words = lexicon.words()
    assert len(words) == len(set(words))


def test_a_weaker_fact_follows_and_a_clashing_one_does_not() -> None:
    rng = Random(0)
    for _ in range(500):
        fact = world.draw(rng)
        true, kept = world.pair(rng, fact, True)
        false, slot = world.pair(rng, fact, False)
        assert world.follows(true, [fact])
        assert true.get(kept) is not None
        assert not world.follows(false, [fact])
        assert [name for name in SLOTS if not world.covers(false.get(name), fact.get(name))] == [slot]


def test_a_swapped_word_is_true_of_another_fact() -> None:
    rng = Random(0)
    swapped = 0
    for _ in range(300):
        facts = world.passage(rng, 3)
        found = world.swap(rng, facts, 0)
        if found is None:
            continue
        claim, slot = found
        assert not world.follows(claim, facts[:1])
        assert any(world.covers(claim.get(slot), other.get(slot)) for other in facts[1:])
        swapped += 1
    assert swapped > 100


def test_text() -> None:
    fact = Fact("dog", "sleeping", "big", "garden")
    assert fact.text() == "the big dog is sleeping in the garden"
    assert fact.put("place", "outdoors").question() == "is the big dog sleeping outdoors"
    assert Fact("dog", "sleeping").text() == "the dog is sleeping"


@pytest.mark.parametrize("name", skills.MIX)
def test_skills_are_short_and_use_no_downstream_template(name: str) -> None:
    rng = Random(name)
    for _ in range(200):
        source, target = skills.MIX[name][0](rng, rng.random())
        assert source and target
        assert len(source.split()) < 60
        assert len(target.split()) <= 5
        for pair in (("sentence1:", "sentence2:"), ("premise:", "hypothesis:"), ("passage:", "question:")):
            assert name == "repeat" or not all(field in source.split() for field in pair)


def test_the_mix_changes_from_words_to_texts() -> None:
    rng = Random(0)
    names = [[skills.draw(rng, progress)[0] for _ in range(400)] for progress in (0.0, 1.0)]
    assert "read" not in names[0] and "read" in names[1]
    assert names[0].count("link") > names[1].count("link")
