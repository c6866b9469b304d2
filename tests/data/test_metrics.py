from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mmpt.config.schema import TaskConfig
from mmpt.data import metrics
from mmpt.data.metrics import chance, interval, label_indices, majority, normalise, score
from mmpt.data.tasks import Example, Task
from mmpt.errors import ConfigError, DataError


def _examples(task: Task, labels: list[int], groups: list[str] | None = None) -> list[Example]:
    return [
        Example(str(n), f"s{n}", task.words[label], label, groups[n] if groups else None)
        for n, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("entailment", 0),
        (" Entailment.", 0),
        ('"entailment"', 0),
        ("not_entailment", 1),
        ("NOT_entailment!", 1),
        ("not entailment", -1),
        ("entailment entailment", -1),
        ("", -1),
        ("...", -1),
    ],
)
def test_generated_text_means_a_label_or_none(configs: dict[str, TaskConfig], text: str, word: int) -> None:
    assert label_indices(Task(configs["rte"]), [text]).tolist() == [word]


def test_words_that_folding_would_merge_stay_apart() -> None:
    task = Task(TaskConfig("t", "{x}", labels={"A": [], "a": [], "a.": []}))
    assert label_indices(task, ["a", " A ", "a.", "a!"]).tolist() == [1, 0, 2, -1]
    punctuation = Task(TaskConfig("t", "{x}", labels={"?": [], "!": []}))
    assert label_indices(punctuation, ["?", "!", "."]).tolist() == [0, 1, -1]


def test_free_text_folds_what_surrounds_but_keeps_signs() -> None:
    assert normalise(" The  Cat. ") == normalise("the cat")
    assert normalise("“Straße”") == normalise("STRASSE")
    for one, other in (("-5", "5"), ("3.5", "35"), ("not_entailment", "entailment"), (".5", "5"), ("c++", "c")):
        assert normalise(one) != normalise(other)
    task = Task(TaskConfig("own", "{x}"))
    examples = [Example(str(n), "s", target, None, None) for n, target in enumerate(["Paris", "The Hague", "?"])]
    assert score(task, examples, ["paris.", "Hague", "?"]) == {"exact_match": pytest.approx(2 / 3)}


def test_matthews_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import matthews_corrcoef

    task = Task(TaskConfig("cola", "{x}", labels={"no": [0], "yes": [1]}, metric="matthews"))
    rng = np.random.default_rng(5)
    truth, guess = rng.integers(0, 2, (2, 60))
    guess[:20] = truth[:20]
    examples = _examples(task, truth.tolist())
    found = score(task, examples, [task.words[label] for label in guess])
    assert list(found) == ["matthews", "accuracy"]
    assert found["matthews"] == pytest.approx(matthews_corrcoef(truth, guess))
    low, high = interval(
        task, examples, [task.words[label] for label in guess], resamples=400, confidence=0.9, seed=1
    ) or (0.0, 0.0)
    assert -1 <= low < found["matthews"] < high <= 1
    assert score(task, examples, ["yes"] * 60)["matthews"] == 0 == chance(task)
    none = score(task, examples, ["what"] * 60)  # what is no label is wrong
    assert none == {"matthews": pytest.approx(-1.0), "accuracy": 0.0}
    with pytest.raises(ConfigError, match="matthews needs two labels, not 3"):
        Task(TaskConfig("t", "{x}", labels={"a": [0], "b": [1], "c": [2]}, metric="matthews"))


def test_cb_by_hand(configs: dict[str, TaskConfig]) -> None:
    task = Task(configs["cb"])
    examples = _examples(task, [0, 0, 1, 2])
    found = score(task, examples, ["entailment", "contradiction", "contradiction", "neutral"])
    assert list(found) == ["accuracy", "f1"]
    # F1: entailment 2/3, contradiction 2/3, neutral 1
    assert found == {"accuracy": 0.75, "f1": pytest.approx(7 / 9)}
    wrong = score(task, examples, ["entailment", "junk", "contradiction", "neutral"])
    assert wrong["f1"] == pytest.approx((2 / 3 + 1 + 1) / 3)  # junk is no class of its own


def test_multirc_by_hand(configs: dict[str, TaskConfig]) -> None:
    task = Task(configs["multirc"])
    examples = _examples(task, [1, 0, 1, 0, 0], ["a", "a", "b", "b", "c"])
    found = score(task, examples, ["True", "True", "True", "False", "False"])
    assert next(iter(found)) == task.primary == "f1a"
    assert found["f1a"] == pytest.approx(2 * 2 / (2 + 3))
    assert found["em"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((0.8 + 0.8) / 2)
    assert found["accuracy"] == 0.8
    assert score(task, examples, ["False"] * 5)["f1a"] == 0.0


def test_multirc_f1a_is_sklearns_binary_f1(configs: dict[str, TaskConfig]) -> None:
    from sklearn.metrics import f1_score

    task = Task(configs["multirc"])
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    examples = _examples(task, truth.tolist(), [str(n // 5) for n in range(500)])
    found = score(task, examples, [task.words[label] for label in guess])
    assert found["f1a"] == pytest.approx(f1_score(truth, guess))
    assert found["em"] == np.mean((truth == guess).reshape(100, 5).all(axis=1))


def test_interval_matches_theory_and_reads_each_prediction_once(
    configs: dict[str, TaskConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(configs["rte"])
    examples = _examples(task, [0] * 2000)
    predictions = ["entailment"] * 1600 + ["not_entailment"] * 400
    read: list[int] = []
    right = metrics._right

    def counted(task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> Any:
        read.append(len(predictions))
        return right(task, examples, predictions)

    monkeypatch.setattr(metrics, "_right", counted)
    found = interval(task, examples, predictions, resamples=1000, confidence=0.95, seed=0)
    assert read == [2000]
    width = 1.96 * (0.8 * 0.2 / 2000) ** 0.5
    assert found == pytest.approx((0.8 - width, 0.8 + width), abs=0.003)
    again = interval(task, examples, predictions, resamples=1000, confidence=0.95, seed=0)
    assert found == again
    assert interval(task, examples, predictions, resamples=1000, confidence=0.95, seed=1) != found
    assert interval(task, examples, predictions, resamples=0, confidence=0.95, seed=0) is None


def test_interval_draws_whole_questions(configs: dict[str, TaskConfig]) -> None:
    """Answers of a question stand or fall together here, so ten copies of an answer tell no more than one."""
    task = Task(configs["multirc"])
    rng = np.random.default_rng(1)
    wrong = np.repeat(rng.random(100) < 0.3, 10)
    predictions = ["False" if bad else "True" for bad in wrong]
    grouped = _examples(task, [1] * 1000, [str(n // 10) for n in range(1000)])
    alone = _examples(task, [1] * 1000, [str(n) for n in range(1000)])
    widths = []
    for examples in (grouped, alone):
        found = interval(task, examples, predictions, resamples=500, confidence=0.9, seed=0)
        assert found is not None
        assert found[0] <= score(task, examples, predictions)["f1a"] <= found[1]
        widths.append(found[1] - found[0])
    assert widths[0] > 2 * widths[1]


def test_interval_of_a_perfect_score_and_of_one_example(configs: dict[str, TaskConfig]) -> None:
    task = Task(configs["rte"])
    kind = {"resamples": 100, "confidence": 0.95, "seed": 0}
    assert interval(task, _examples(task, [0, 1]), ["entailment", "not_entailment"], **kind) == (1.0, 1.0)
    assert interval(task, _examples(task, [0]), ["junk"], **kind) == (0.0, 0.0)


def test_majority_and_chance(configs: dict[str, TaskConfig]) -> None:
    rte, cb, multirc = (Task(configs[name]) for name in ("rte", "cb", "multirc"))
    train = _examples(rte, [1, 0, 1])
    assert majority(rte, train, _examples(rte, [0, 0])) == ["not_entailment"] * 2
    assert majority(rte, _examples(rte, [1, 0]), train) == ["entailment"] * 3  # of equals the first word
    assert (chance(rte), chance(cb), chance(multirc)) == (0.5, pytest.approx(1 / 3), None)
    free = Task(TaskConfig("own", "{x}"))
    texts = [Example(str(n), "s", text, None, None) for n, text in enumerate(["b", "a", "a"])]
    assert majority(free, texts, texts) == ["a"] * 3
    assert chance(free) is None


def test_what_cannot_be_scored_is_an_error(configs: dict[str, TaskConfig]) -> None:
    task = Task(configs["rte"])
    with pytest.raises(DataError, match="1 predictions for 2 examples"):
        score(task, _examples(task, [0, 1]), ["entailment"])
    with pytest.raises(DataError, match="no examples to score"):
        score(task, [], [])
    with pytest.raises(DataError, match="example x7 is unlabelled"):
        score(task, [Example("x7", "s", None, None, None)], ["entailment"])
    with pytest.raises(DataError, match="no labelled example"):
        majority(task, [], [])
