from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.config.schema import TaskConfig
from mmpt.data.metrics import answers, chance, find, interval, label_indices, majority, normalise, score, scoring
from mmpt.data.tasks import Example, Task
from mmpt.errors import ConfigError, DataError
from mmpt.utils import extensions


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
    assert label_indices(Task(configs["rte"]).words, [text]).tolist() == [word]


def test_words_that_folding_would_merge_stay_apart() -> None:
    task = Task(TaskConfig("t", "{x}", labels={"A": [], "a": [], "a.": []}))
    assert label_indices(task.words, ["a", " A ", "a.", "a!"]).tolist() == [1, 0, 2, -1]
    punctuation = Task(TaskConfig("t", "{x}", labels={"?": [], "!": []}))
    assert label_indices(punctuation.words, ["?", "!", "."]).tolist() == [0, 1, -1]


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
    with pytest.raises(ConfigError, match=r"task.metric=matthews needs two task.labels"):
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
    right = answers.label_indices

    def counted(words: Sequence[str], predictions: Sequence[str]) -> Any:
        read.append(len(predictions))
        return right(words, predictions)

    monkeypatch.setattr(scoring, "label_indices", counted)
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


def _free(metric: str, targets: Sequence[object]) -> tuple[Task, list[Example]]:
    task = Task(TaskConfig("own", "{x}", metric=metric))
    rows = [(f"f:{number}", {"x": "s", "label": target}) for number, target in enumerate(targets, start=1)]
    return task, list(task.examples(rows))


@pytest.mark.parametrize("metric", ["f1", "f1_macro"])
def test_f1_is_that_of_scikit_learn(metric: str) -> None:
    from sklearn.metrics import f1_score

    task = Task(TaskConfig("t", "{x}", labels={"no": [0], "yes": [1]}, metric=metric))
    rng = np.random.default_rng(3)
    truth, guess = rng.integers(0, 2, (2, 50))
    found = score(task, _examples(task, truth.tolist()), [task.words[label] for label in guess])
    expected = f1_score(truth, guess, average="macro" if metric == "f1_macro" else "binary")
    assert found == {metric: pytest.approx(expected), "accuracy": np.mean(truth == guess)}
    assert chance(task) is None


def test_macro_f1_of_many_labels_is_that_of_scikit_learn_in_every_sample() -> None:
    from sklearn.metrics import f1_score

    metric = find("f1_macro")[0]
    rng = np.random.default_rng(4)
    truth, guess = rng.integers(0, 7, (2, 30))
    texts = tuple(map(str, guess)), tuple(map(str, truth))
    counts = metric.counts(answers.Answers(*texts, truth, guess, np.arange(30), 7))
    drawn = rng.integers(0, 30, 12)
    found = metric.value(counts, np.bincount(drawn, minlength=30)[None].astype(float))
    present = sorted({*truth[drawn], *guess[drawn]})
    assert found[0] == pytest.approx(f1_score(truth[drawn], guess[drawn], labels=present, average="macro"))


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlations_are_those_of_scipy_in_every_sample(name: str) -> None:
    import scipy.stats

    expected = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}[name]
    rng = np.random.default_rng(0)
    truth = np.round(rng.random(80) * 5 + 1e6, 1)  # with ties, far from zero
    guess = np.round(truth + rng.normal(size=80), 1)
    task, examples = _free(name, truth.tolist())
    texts = [str(value) for value in guess]
    assert score(task, examples, texts)[name] == pytest.approx(expected(truth, guess)[0])
    drawn = rng.integers(0, 80, 80)
    metric = task.metrics[0]
    counts = metric.counts(answers.Answers(*map(tuple, ([e.target for e in examples], texts)), *[np.arange(80)] * 3, 0))
    weights = np.bincount(drawn, minlength=80)[None].astype(float)
    assert metric.value(counts, weights)[0] == pytest.approx(expected(truth[drawn], guess[drawn])[0])
    low, high = interval(task, examples, texts, resamples=300, confidence=0.9, seed=1) or (0, 0)
    assert low < score(task, examples, texts)[name] < high
    assert score(task, examples, ["3.3"] * 80)[name] == 0.0 == chance(task)
    turned = [str(-value) for value in truth]
    assert task.range == (-1, 1) and score(task, examples, turned)[name] == pytest.approx(-1)


def test_what_is_no_number_counts_as_minus_one() -> None:
    task, examples = _free("pearson_spearman", [1, "2.5", 4.0, "-3"])
    for text in ("four", "", "nan", "inf", "1,5"):
        assert score(task, examples, ["1", "2", text, "-2"]) == score(task, examples, ["1", "2", "-1", "-2"])
    assert list(score(task, examples, ["1"] * 4)) == ["pearson", "spearman"]
    assert score(task, examples, [" 1.", "２.5", "'4'", "-3"])["pearson"] == pytest.approx(1)
    with pytest.raises(DataError, match=r"f:1: pearson cannot score the target .much."):
        _free("pearson", ["much"])
    with pytest.raises(ConfigError, match=r"needs task.labels that are numbers, or none"):
        Task(TaskConfig("t", "{x}", labels={"a": [1], "2": [2]}, metric="spearman"))


def test_token_f1_is_that_of_squad() -> None:
    task, examples = _free("token_f1", ["the Eiffel Tower", "in 1889", "an", "x"])
    found = score(task, examples, ["Eiffel tower!", "1889", "The", "y"])
    assert found == {"token_f1": pytest.approx((1 + 2 / 3 + 1 + 0) / 4), "exact_match": 0.0}


def test_rouge_and_bleu_are_those_of_their_packages() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    targets = ["the cat sat on the mat today", "a dog ran to the house", "birds sing in the tree"]
    texts = ["the cat sat on a mat today", "the dog ran to the house", "birds fly"]
    task, examples = _free("rouge", targets)
    found = score(task, examples, texts)
    assert list(found) == ["rougeL", "rouge1", "rouge2"]
    scorer = RougeScorer(list(found))
    for name, value in found.items():
        pairs = zip(targets, texts, strict=True)
        assert value == pytest.approx(np.mean([scorer.score(*pair)[name].fmeasure for pair in pairs]))
    task, examples = _free("bleu", targets)
    assert score(task, examples, texts)["bleu"] == pytest.approx(BLEU().corpus_score(texts, [targets]).score / 100)
    low, high = interval(task, examples, texts, resamples=50, confidence=0.9, seed=0) or (0, 0)
    assert 0 <= low < high <= 1


def test_rouge_leaves_a_redirected_stream_open() -> None:
    """Hydra configures logging anew for each trial, which closes the handlers that there are."""
    code = (
        "import io, logging.config, sys; sys.stderr = stream = io.StringIO()\n"
        "from mmpt.data.metrics import find; from mmpt.data.metrics.answers import Answers; import numpy as np\n"
        "one = np.zeros(1, dtype=int); print(find('rouge')[0].of(Answers(('a',), ('a',), one - 1, one - 1, one, 0)))\n"
        "sys.stderr = sys.__stderr__; logging.config.dictConfig({'version': 1}); stream.write('open')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1.0"), done.stderr


@pytest.mark.parametrize(("metric", "package"), [("rouge", "rouge_score"), ("bleu", "sacrebleu")])
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, metric: str, package: str) -> None:
    monkeypatch.setattr("mmpt.data.metrics.table.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"task.metric={metric} needs the package {package}, .*pip install.*text"):
        Task(TaskConfig("t", "{x}", metric=metric))


OWN = """
from mmpt.data.metrics import Metric

METRIC = Metric.mean("contains", lambda prediction, target: float(target in prediction))
"""


def test_a_metric_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(extensions.VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=r'task.metric="contains" is unknown; allowed: accuracy, .*metric/NAME.py'):
        Task(TaskConfig("t", "{x}", metric="contains"))
    (tmp_path / "metric").mkdir()
    (tmp_path / "metric" / "contains.py").write_text(OWN)
    task, examples = _free("contains", ["a", "b", "c", "d"])
    assert score(task, examples, ["cat", "b", "x", ""]) == {"contains": 0.5}
    low, high = interval(task, examples, ["cat", "b", "x", ""], resamples=200, confidence=0.9, seed=0) or (1, 0)
    assert 0 <= low < 0.5 < high <= 1
    assert chance(task) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must set METRIC to a mmpt.data.metrics.Metric"),
        ("METRIC = ()", "must set METRIC"),
        (
            OWN + 'NEEDS = ("gold",)',
            "NEEDS has 'gold', which is unknown; allowed: labels",
        ),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_wrong_metric_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv(extensions.VARIABLE, str(tmp_path))
    (tmp_path / "metric").mkdir()
    (tmp_path / "metric" / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Task(TaskConfig("t", "{x}", metric="mine"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"), [("café", "cafe\u0301"), ("１２", "12"), ("tích cực", "ti\u0301ch cu\u031b\u0323c")]
)
def test_unicode_forms_of_an_answer_are_equal(one: str, other: str) -> None:
    for target, text in ((one, other), (other, one)):
        task, examples = _free("exact_match", [target])
        assert score(task, examples, [text]) == {"exact_match": 1.0}
        assert score(*_free("token_f1", [target]), [text])["token_f1"] == 1.0
        if one != "１２":
            assert score(*_free("bleu", [f"{target} b c d"]), [f"{text} b c d"])["bleu"] == pytest.approx(1)
        assert label_indices([target, "b"], [text]).tolist() == [0]
