"""Miniature tasks in the official SuperGLUE fields, drawn from the synthetic world; the command writes their files.

They show a method at work offline; scores on them say nothing about real language. Each is drawn once per process from
a fixed seed; no input occurs in two splits. Every row also names its sub-population (``part``). Imports no torch.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from mmpt.bundled.tasks import TASKS_DIR
from tools.toy import lexicon, skills, world

Row = dict[str, Any]
SPLITS = ("train", "validation", "test")
SEED = 20241


def _rte(rng: Random, label: int) -> Row:
    """A premise of one or two facts, and a hypothesis; label 0 entailment, 1 not_entailment."""
    facts = world.passage(rng, 2) if rng.random() < 0.35 else [world.draw(rng, adjective=0.65, place=0.75)]
    index = rng.randrange(len(facts))
    claim, slot = world.pair(rng, facts[index], True) if label == 0 else skills.false_claim(rng, facts, index)
    return {
        "premise": " and ".join(fact.text() for fact in facts),
        "hypothesis": claim.text(),
        "label": ("entailment", "not_entailment")[label],
        "part": f"{slot} {'one' if len(facts) == 1 else 'two'}",
    }


def _boolq(rng: Random, label: int) -> Row:
    """A passage of two or three sentences and a question that it answers; label 0 False, 1 True."""
    facts = world.passage(rng, rng.randint(2, 3))
    index = rng.randrange(len(facts))
    claim, slot = world.pair(rng, facts[index], True) if label == 1 else skills.false_claim(rng, facts, index)
    text = ". ".join(fact.text() for fact in facts) + "."
    return {"question": claim.question(), "passage": text, "label": bool(label), "part": f"{slot} {len(facts)}"}


def _cb(rng: Random, label: int) -> Row:
    """Entailment (0), contradiction (1), or neutral (2): the hypothesis speaks of something else."""
    fact = world.draw(rng, adjective=0.6, place=0.75)
    if label == 2:
        kinds = [kind for kind in lexicon.KINDS if kind != lexicon.kind_of(fact.noun)]
        claim, slot = world.pair(rng, world.draw(rng, kinds), True)
    else:
        claim, slot = world.pair(rng, fact, label == 0, slots=("adjective", "verb", "place"))
    name = ("entailment", "contradiction", "neutral")[label]
    return {"premise": fact.text(), "hypothesis": claim.text(), "label": name, "part": slot}


def _copa(rng: Random, label: int) -> Row:
    """An event and its cause or effect as choice ``label``, beside another event."""
    fact, right, wrong, way = skills.choice(rng)
    first, second = (right, wrong) if label == 0 else (wrong, right)
    texts = {"premise": fact.text(), "choice1": first.text(), "choice2": second.text()}
    return {**texts, "question": way, "label": label, "part": way}


def _wic(rng: Random, label: int) -> Row:
    """Two sentences with one word of two senses: the same sense (1) or not (0)."""
    word, life = rng.choice(lexicon.AMBIGUOUS), rng.choice(("live", "dead"))
    other = life if label == 1 else ("dead" if life == "live" else "live")
    cues = [rng.randint(1, 2) for _ in range(2)]
    facts = [world.sense(rng, word, kind, cue) for kind, cue in zip((life, other), cues, strict=True)]
    texts = {"word": word, "sentence1": facts[0].text(), "sentence2": facts[1].text()}
    return {**texts, "label": bool(label), "part": f"{life} {sum(cues)}"}


ASKED = {"adjective": "how is the {}", "verb": "what is the {} doing", "place": "where is the {}"}


def _questions(rng: Random) -> list[list[Row]]:
    """A paragraph and two questions about it, each with two to four answers (label 1: right)."""
    facts = world.passage(rng, 3)
    asked = [(fact, slot) for fact in facts for slot in ASKED if fact.get(slot) is not None]
    found = []
    for fact, slot in rng.sample(asked, 2):
        word = str(fact.get(slot))
        right = {word, world.weaken_word(rng, word, 1.0)}
        wrong = {world.wrong_word(rng, fact, slot, 0.3) for _ in range(2)}
        wrong |= {str(f.get(slot)) for f in facts if f.get(slot) is not None and not world.covers(f.get(slot), word)}
        wrong = {w for w in wrong if not world.covers(w, word) and not world.covers(word, w)}
        answers = [(w, 1) for w in rng.sample(sorted(right), rng.randint(1, len(right)))]
        answers += [(w, 0) for w in rng.sample(sorted(wrong), min(len(wrong), rng.randint(1, 2)))]
        question = ASKED[slot].format(world.weaken_word(rng, fact.noun, 0.4))
        text = ". ".join(f.text() for f in facts) + "."
        row = {"paragraph": text, "question": question, "part": slot}
        rows = [{**row, "answer": _answer(w, slot), "label": truth} for w, truth in answers]
        found.append(rng.sample(rows, len(rows)))
    return found


def _answer(word: str, slot: str) -> str:
    """Render an answer: *in the garden*, *sleeping*."""
    return f"in the {word}" if slot == "place" and word not in lexicon.PLACES else word


# Task -> how a row is drawn, shares of the labels, rows of train, validation, test.
SINGLE: dict[str, tuple[Callable[[Random, int], Row], tuple[float, ...], tuple[int, int, int]]] = {
    "boolq": (_boolq, (0.47, 0.53), (1000, 300, 500)),
    "cb": (_cb, (0.42, 0.36, 0.22), (250, 100, 250)),
    "copa": (_copa, (0.48, 0.52), (500, 200, 500)),
    "rte": (_rte, (0.47, 0.53), (1000, 300, 500)),
    "wic": (_wic, (0.48, 0.52), (1000, 300, 500)),
}
PARAGRAPHS = (160, 50, 80)  # of MultiRC: two questions each, two to four answers each
NAMES: tuple[str, ...] = (*SINGLE, "multirc")


def records(task: str) -> dict[str, list[Row]]:
    """Draw the rows of one of :data:`NAMES`; :func:`mmpt.bundled.tasks.records` reads them from its file."""
    return {split: [dict(row) for row in rows] for split, rows in _drawn(task).items()}


def main() -> None:
    """Write the files that the package ships."""
    for name in NAMES:
        text = json.dumps(records(name), separators=(",", ":"))
        (TASKS_DIR / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))


@cache
def _drawn(task: str) -> dict[str, tuple[Row, ...]]:
    """Draw a task, once."""
    rng = Random(f"{SEED} {task}")
    if task == "multirc":
        return _multirc(rng)
    make, shares, sizes = SINGLE[task]
    seen: set[tuple[str, ...]] = set()
    splits: dict[str, tuple[Row, ...]] = {}
    for split, size in zip(SPLITS, sizes, strict=True):
        counts = [round(share * size) for share in shares]
        counts[-1] = size - sum(counts[:-1])
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        rng.shuffle(labels)
        rows = [_fresh(rng, make, label, seen) for label in labels]
        splits[split] = tuple({**row, "idx": number} for number, row in enumerate(rows))
    return splits


def _fresh(rng: Random, make: Callable[[Random, int], Row], label: int, seen: set[tuple[str, ...]]) -> Row:
    """Draw a row whose texts have not been drawn before."""
    while True:
        row = make(rng, label)
        key = tuple(sorted(str(value) for name, value in row.items() if name not in ("label", "part")))
        if key not in seen:
            seen.add(key)
            return row


def _multirc(rng: Random) -> dict[str, tuple[Row, ...]]:
    """Draw MultiRC: paragraphs of one split are in no other."""
    splits: dict[str, tuple[Row, ...]] = {}
    seen: set[str] = set()
    for split, size in zip(SPLITS, PARAGRAPHS, strict=True):
        rows: list[Row] = []
        paragraph = question = 0
        while paragraph < size:
            questions = _questions(rng)
            if questions[0][0]["paragraph"] in seen or questions[0][0]["question"] == questions[1][0]["question"]:
                continue
            seen.add(questions[0][0]["paragraph"])
            for answers in questions:
                for number, row in enumerate(answers):
                    index = {"paragraph": paragraph, "question": question, "answer": number}
                    rows.append({**row, "idx": index, "question_id": question})
                question += 1
            paragraph += 1
        splits[split] = tuple(rows)
    return splits


if __name__ == "__main__":
    main()
