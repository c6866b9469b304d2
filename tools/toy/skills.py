"""What the bundled network is taught before it is frozen: skills, in frames that no task downstream uses.

A skill draws one example, a source and a target text. Pair skills put their two texts into frames whose field words,
order and task words vary, so that the skill does not hang on one frame; the words of the downstream templates and
labels appear only where they carry no meaning (copied, or as noise in front). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tools.toy import lexicon, world
from tools.toy.lexicon import SLOTS, listed
from tools.toy.world import Fact

Example = tuple[str, str]
Skill = Callable[[Random, float], Example]  # (rng, level 0..1 of difficulty) -> source, target

FIELDS: tuple[str, ...] = listed(
    "first second text note line item left right before after claim given source story report record entry view "
    "remark part one two fact idea saying scene case"
)
# Task word -> what is answered where the texts agree, where they clash, and (three-way) where neither.
VERDICTS: dict[str, tuple[str, str]] = {
    "check": ("yes", "no"),
    "judge": ("holds", "fails"),
    "compare": ("kept", "changed"),
    "test": ("right", "wrong"),
    "match": ("fits", "breaks"),
    "verify": ("agree", "differ"),
    "decide": ("accept", "reject"),
    "weigh": ("good", "bad"),
    "trust": ("safe", "risky"),
    "mark": ("plus", "minus"),
}
THREE: dict[str, tuple[str, str, str]] = {
    "grade": ("supported", "denied", "open"),
    "sort": ("up", "down", "level"),
    "rate": ("high", "low", "middle"),
}
KIND_OF_LIFE = {"live": "animal", "dead": "machine"}
ASK: dict[str, str] = {"who": "noun", "how": "adjective", "doing": "verb", "where": "place"}
DOWNSTREAM: tuple[str, ...] = listed(
    "rte boolq cb wic sentence1: sentence2: premise: hypothesis: hyopthesis: passage: question: paragraph: answer: "
    "choice1: choice2: word: text: entailment not_entailment contradiction neutral True False choice1 choice2"
)
CONTROL: tuple[str, ...] = listed(
    "link plain note ask slots slot same other none pick leads cause effect sense about repeat fill so say that it "
    "said animal machine reply"
)


def vocabulary() -> tuple[str, ...]:
    """Return every word of frames, answers and templates (not of the world), in a fixed order."""
    verdicts = [word for key, pair in (*VERDICTS.items(), *THREE.items()) for word in (key, *pair)]
    return tuple(dict.fromkeys([*FIELDS, *verdicts, *ASK, *CONTROL, *(w.rstrip(":") for w in DOWNSTREAM)]))


def _field(rng: Random) -> str:
    """Draw a field word: known, made up, perhaps numbered."""
    if rng.random() < 0.7:
        word = rng.choice(FIELDS)
    else:
        word = "".join(rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
    return word + rng.choice("123456789") if rng.random() < 0.3 else word


def frame(rng: Random, task: str, parts: list[str], shuffle: bool = True) -> str:
    """Put texts into a frame: field words, their order, where the task word stands and the noise all vary.

    Args:
        rng: Source of randomness.
        task: The task word.
        parts: The texts.
        shuffle: Whether their order may change.
    """
    if shuffle:
        parts = rng.sample(parts, len(parts))
    stop = "." if rng.random() < 0.25 else ""
    if rng.random() < 0.12:
        fields = [f"{text} {rng.choice('./|-,;')}" for text in parts]
    else:
        fields = [f"{_field(rng)}: {text}{stop}" for text in parts]
    draw = rng.random()
    fields.insert(0 if draw < 0.55 else len(fields) if draw < 0.85 else rng.randrange(len(fields) + 1), task)
    if rng.random() < 0.3:
        noise = rng.choice(DOWNSTREAM) if rng.random() < 0.5 else _field(rng)
        fields.insert(0 if rng.random() < 0.6 else rng.randrange(len(fields) + 1), noise)
    return " ".join(fields)


def _verdict(rng: Random) -> tuple[str, tuple[str, str]]:
    """Draw a task word and its pair of answers."""
    return rng.choice(tuple(VERDICTS.items()))


def _claim(rng: Random, fact: Fact) -> str:
    """Render a fact as a statement, a question, or with words in front."""
    draw = rng.random()
    if draw < 0.6:
        return fact.text()
    if draw < 0.85:
        return fact.question()
    return f"{rng.choice(('so', 'it is said that', 'say that', 'note that'))} {fact.text()}"


def _short(rng: Random, level: float) -> Fact:
    """Draw a fact that has more slots at a higher level."""
    return world.draw(rng, adjective=0.25 + 0.4 * level, place=0.35 + 0.4 * level)


def _pair(rng: Random, level: float) -> tuple[Fact, Fact, str | None]:
    """Draw two facts and the slot in which they clash, ``None`` where they agree."""
    fact = _short(rng, level)
    if rng.random() < 0.15:
        fact = world.sense(rng, rng.choice(lexicon.AMBIGUOUS), rng.choice(("live", "dead")), rng.randint(1, 2))
        slots = [slot for slot in SLOTS[1:] if fact.get(slot) is not None]
    else:
        slots = [slot for slot in SLOTS if fact.get(slot) is not None]
    true = rng.random() < 0.5
    claim, slot = world.pair(rng, fact, true, 0.35 + 0.35 * level, slots)
    return fact, claim, None if true else slot


def link(rng: Random, level: float) -> Example:
    """Two words: does one say what the other says?"""
    fact = world.draw(rng, adjective=1.0, place=1.0)
    slot = rng.choice(SLOTS)
    word = str(fact.get(slot))
    same = rng.random() < 0.5
    other = world.weaken_word(rng, word, 0.9) if same else world.wrong_word(rng, fact, slot)
    pair = [word, other] if rng.random() < 0.5 else [other, word]
    task, answers = ("link", ("fits", "breaks")) if rng.random() < 0.5 else _verdict(rng)
    return f"{task} {pair[0]} {pair[1]}", answers[0 if same else 1]


def plain(rng: Random, level: float) -> Example:
    """A text: the same in plain words, the first of each synonym pair and the kinds of nouns and places."""
    fact = _short(rng, level)
    found = [str(fact.get(slot)) for slot in ("adjective", "noun", "verb", "place") if fact.get(slot) is not None]
    return f"plain {fact.text()}", " ".join(lexicon.plain(word) for word in found)


def look_up(rng: Random, level: float) -> Example:
    """A passage and a question word: the word it asks for."""
    facts = world.passage(rng, 1 if rng.random() > 0.3 + 0.5 * level else rng.randint(2, 3))
    fact = rng.choice(facts)
    asks = [ask for ask, slot in ASK.items() if fact.get(slot) is not None]
    ask = rng.choice(asks)
    text = ". ".join(other.text() for other in facts)
    if len(facts) == 1:
        about = ""
    elif ask == "who":
        about = f" {fact.verb}"
    else:
        about = f" {world.weaken_word(rng, fact.noun, 0.4)}"
    parts = [f"note {text}", f"ask {ask}{about}"]
    return " ".join(rng.sample(parts, 2)), str(fact.get(ASK[ask]))


def _among(rng: Random, fact: Fact, level: float) -> str:
    """Render a fact, at a higher level often among others about different things."""
    if rng.random() >= 0.5 * level or lexicon.kind_of(fact.noun) is None:
        return fact.text()
    kinds = [kind for kind in lexicon.KINDS if kind != lexicon.kind_of(fact.noun)]
    facts = [world.draw(rng, [kind]) for kind in rng.sample(kinds, rng.randint(1, 2))]
    facts.insert(rng.randint(0, len(facts)), fact)
    return rng.choice((". ", " and ", ", ")).join(other.text() for other in facts)


def slots(rng: Random, level: float) -> Example:
    """Two texts: for noun, adjective, verb, place whether both say the same."""
    first, second, clash = _pair(rng, level)
    if clash == "noun":  # then nothing tells which of several facts is meant
        level = 0.0
    source = frame(rng, "slots", [_among(rng, first, level), second.text()])
    return source, " ".join(_state(first, second, slot, clash) for slot in SLOTS)


def slot(rng: Random, level: float) -> Example:
    """Two texts and a question word: whether both say the same there."""
    first, second, clash = _pair(rng, level)
    if clash == "noun":  # then nothing tells which of several facts is meant
        level = 0.0
    ask = rng.choice(tuple(ASK)) if clash is None or rng.random() < 0.5 else _asked(clash)
    source = frame(rng, f"slot {ask}", [first.text(), second.text()])
    return source, _state(first, second, ASK[ask], clash)


def _asked(name: str) -> str:
    """Return the question word of a slot."""
    return next(ask for ask, asked in ASK.items() if asked == name)


def _state(first: Fact, second: Fact, name: str, clash: str | None) -> str:
    """Return same, other or none for one slot of two facts."""
    if first.get(name) is None or second.get(name) is None:
        return "none"
    return "other" if clash == name else "same"


def compare(rng: Random, level: float) -> Example:
    """Two texts in a frame: do they agree?"""
    first, second, clash = _pair(rng, level)
    task, answers = _verdict(rng)
    texts = [_claim(rng, first), _claim(rng, second)]
    return frame(rng, task, texts), answers[0 if clash is None else 1]


def false_claim(rng: Random, facts: list[Fact], index: int) -> tuple[Fact, str]:
    """Draw a claim that is false of a passage (a word of another fact there, or of none), and the false slot."""
    while True:
        swapped = world.swap(rng, facts, index) if rng.random() < 0.5 else None
        claim, slot = swapped if swapped is not None else world.pair(rng, facts[index], False)
        if not world.follows(claim, facts):
            return claim, slot


def read(rng: Random, level: float) -> Example:
    """A passage of two or three sentences and a claim or question: is it so?"""
    facts = world.passage(rng, 2 if rng.random() < 0.7 - 0.3 * level else 3)
    index = rng.randrange(len(facts))
    true = rng.random() < 0.5
    claim, _ = world.pair(rng, facts[index], True) if true else false_claim(rng, facts, index)
    task, answers = _verdict(rng)
    joint = rng.choice((". ", " and ", ", "))
    text = joint.join(fact.text() for fact in facts)
    return frame(rng, task, [text, _claim(rng, claim)]), answers[0 if true else 1]


def reply(rng: Random, level: float) -> Example:
    """A passage, a question about one slot and a reply: is the reply right?"""
    facts = world.passage(rng, rng.randint(1, 2 + round(level)))
    fact = rng.choice(facts)
    ask = rng.choice([ask for ask in ASK if ask != "who" and fact.get(ASK[ask]) is not None])
    name = ASK[ask]
    true = rng.random() < 0.5
    word = world.weaken_word(rng, str(fact.get(name)), 0.5) if true else world.wrong_word(rng, fact, name)
    others = [str(f.get(name)) for f in facts if f is not fact and f.get(name) is not None]
    others = [w for w in others if not world.covers(w, fact.get(name))]
    if not true and others and rng.random() < 0.5:
        word = rng.choice(others)
    task, answers = _verdict(rng)
    question = f"{ask} is the {world.weaken_word(rng, fact.noun, 0.4)}"
    parts = [". ".join(f.text() for f in facts), question, Fact(fact.noun, "", place=word).where() or word]
    if name != "place":
        parts[2] = word
    return frame(rng, task, parts), answers[0 if true else 1]


def three(rng: Random, level: float) -> Example:
    """Two texts: agree, clash, or speak of different things."""
    first, second, clash = _pair(rng, level)
    while clash == "noun":
        first, second, clash = _pair(rng, level)
    which = 0 if clash is None else 1
    if rng.random() < 0.34:
        kinds = [kind for kind in lexicon.KINDS if kind != (lexicon.kind_of(first.noun) or first.noun)]
        second, which = world.weaken(rng, world.draw(rng, kinds)), 2
    task = rng.choice(tuple(THREE))
    return frame(rng, task, [_claim(rng, first), _claim(rng, second)]), THREE[task][which]


def sense(rng: Random, level: float) -> Example:
    """One or two texts with a word of two senses: which one in each?"""
    noun = rng.choice(lexicon.AMBIGUOUS)
    lives = [rng.choice(("live", "dead")) for _ in range(2 if rng.random() < 0.6 * level else 1)]
    texts = [world.sense(rng, noun, life, rng.randint(1, 2)).text() for life in lives]
    return frame(rng, f"sense {noun}", texts, shuffle=False), " ".join(KIND_OF_LIFE[life] for life in lives)


def senses(rng: Random, level: float) -> Example:
    """Two texts with one word form: the same sense?"""
    noun, life = rng.choice(lexicon.AMBIGUOUS), rng.choice(("live", "dead"))
    same = rng.random() < 0.5
    second = life if same else ("dead" if life == "live" else "live")
    texts = [world.sense(rng, noun, kind, rng.randint(1, 2)).text() for kind in (life, second)]
    parts = [*texts, noun] if rng.random() < 0.7 else texts
    task, answers = _verdict(rng)
    about = f"{task} about" if rng.random() < 0.5 else f"about {task}"
    return frame(rng, about, parts), answers[0 if same else 1]


def leads(rng: Random, level: float) -> Example:
    """Two events: is one the cause, or the effect, of the other?"""
    chain = rng.choice(lexicon.CHAINS)
    at, way = rng.randrange(3), rng.choice(("cause", "effect"))
    right = at - 1 if way == "cause" else at + 1
    if not 0 <= right < 3:
        at, right = 1, 0 if way == "cause" else 2
    same = rng.random() < 0.5
    if same:
        other = chain[right]
    else:
        other = rng.choice([w for c in lexicon.CHAINS for w in c if w not in (chain[right], chain[at])])
    one, two = (world.weaken_word(rng, w, 0.5) for w in (chain[at], other))
    return f"leads {way} {one} {two}", "fits" if same else "breaks"


def pick(rng: Random, level: float) -> Example:
    """An event and two others: which is its cause, or its effect?"""
    fact, right, wrong, way = choice(rng)
    order = rng.sample((right, wrong), 2)
    names = rng.choice((("first", "second"), ("one", "two"), ("left", "right"), ("before", "after")))
    options = f"{names[0]}: {order[0].text()} {names[1]}: {order[1].text()}"
    parts = [options, f"{_field(rng)}: {fact.text()}", f"{_field(rng)}: {way}"]
    return "pick " + " ".join(rng.sample(parts, 3)), names[order.index(right)]


def choice(rng: Random) -> tuple[Fact, Fact, Fact, str]:
    """Draw an event, what goes with it, what doesn't, and ``cause`` or ``effect``."""
    chain = rng.choice(lexicon.CHAINS)
    way = rng.choice(("cause", "effect"))
    at = rng.choice((1, 2) if way == "cause" else (0, 1))
    right = chain[at - 1 if way == "cause" else at + 1]
    fact = world.draw(rng, ["machine"] if chain in lexicon.CHAINS[4:] else ["animal", "person"])
    pool = [w for c in lexicon.CHAINS for w in c if w not in (right, chain[at])]
    pool = [w for w in pool if (w in lexicon.VERBS_OF[fact.life])]
    wrong = chain[at + 1 if way == "cause" else at - 1] if at == 1 and rng.random() < 0.5 else rng.choice(pool)
    event = fact.put("verb", world.weaken_word(rng, chain[at], 0.5))
    noun = world.weaken_word(rng, fact.noun, 0.5)
    facts = [Fact(noun, world.weaken_word(rng, verb, 0.5), life=fact.life) for verb in (right, wrong)]
    return event, facts[0], facts[1], way


def repeat(rng: Random, level: float) -> Example:
    """Copy words, those of labels and templates among them."""
    pool = (*DOWNSTREAM, *DOWNSTREAM, *vocabulary(), *rng.sample(lexicon.words(), 30))
    copied = " ".join(rng.choice(pool) for _ in range(rng.randint(1, 3)))
    return f"repeat {copied}", copied


def fill(rng: Random, level: float) -> Example:
    """Span corruption: a text and one that follows from it, with words missing."""
    fact = _short(rng, level)
    tokens = f"{fact.text()} so {world.weaken(rng, fact).text()}".split()
    hidden = sorted(rng.sample(range(len(tokens)), 2))
    target = " ".join(f"<extra_id_{number}> {tokens[at]}" for number, at in enumerate(hidden))
    for number, at in enumerate(hidden):
        tokens[at] = f"<extra_id_{number}>"
    return " ".join(tokens), target


# Skill -> share of the batch at the start and at the end of the curriculum; in between, both are blended.
MIX: dict[str, tuple[Skill, float, float]] = {
    "link": (link, 0.18, 0.03),
    "plain": (plain, 0.14, 0.03),
    "look_up": (look_up, 0.14, 0.10),
    "slots": (slots, 0.22, 0.13),
    "slot": (slot, 0.12, 0.06),
    "compare": (compare, 0.06, 0.21),
    "read": (read, 0.0, 0.17),
    "reply": (reply, 0.0, 0.05),
    "three": (three, 0.0, 0.04),
    "sense": (sense, 0.04, 0.03),
    "senses": (senses, 0.0, 0.07),
    "leads": (leads, 0.02, 0.02),
    "pick": (pick, 0.0, 0.03),
    "repeat": (repeat, 0.05, 0.02),
    "fill": (fill, 0.03, 0.01),
}


def draw(rng: Random, progress: float) -> tuple[str, Example]:
    """Draw a skill's name and an example, by how far the curriculum has come (0..1)."""
    blend = min(1.0, progress / 0.3)
    names = tuple(MIX)
    weights = [MIX[name][1] * (1 - blend) + MIX[name][2] * blend for name in names]
    name = rng.choices(names, weights)[0]
    return name, MIX[name][0](rng, blend)
