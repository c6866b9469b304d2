"""Mixtures of tasks: data, sampling and scores are those of the tasks."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from mmpt.config.compose import CONF, compose
from mmpt.config.schema import DataConfig, MixConfig, TrainerConfig
from mmpt.data.metrics import chance, interval, majority, score
from mmpt.data.mixture import Mixture, counts, load_all, task_of
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Example
from mmpt.errors import DataError
from mmpt.training.batches import Batches
from mmpt.training.settings import check, find_problems, plain
from mmpt.utils.extensions import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = DataConfig("bundled")


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    task = task_of(check(compose(["task=mix", "++mix.tasks=[rte,cb,multirc]"], CONF)).task)
    assert isinstance(task, Mixture)
    return task


def test_the_range_of_the_mean_is_that_of_the_tasks_metrics() -> None:
    mixture = task_of(check(compose(["task=mix", "++mix.tasks=[rte,cb]"], CONF)).task)
    part = mixture.parts["rte"]
    for own, expected in (((-1.0, 1.0), (-0.5, 1.0)), ((0.0, 100.0), None), (None, None)):
        part.metrics = (replace(part.metrics[0], range=own),)
        assert mixture.range == expected


def test_splits_are_those_of_the_tasks_one_after_another(mixture: Mixture) -> None:
    splits = load_all(mixture, BUNDLED)
    for name, part in mixture.parts.items():
        alone = load_splits(part, BUNDLED).test
        mine = [example for example in splits.test if example.task == name]
        assert [(one.source, one.target, one.label) for one in mine] == [(o.source, o.target, o.label) for o in alone]
    assert len({example.id for example in splits.train}) == len(splits.train)
    fewer = load_all(mixture, replace(BUNDLED, limit_train=30))
    assert fewer.fingerprint != splits.fingerprint
    assert len(fewer.train) <= 3 * 30


def test_scores_are_those_of_each_task_and_their_mean(mixture: Mixture) -> None:
    splits = load_all(mixture, replace(BUNDLED, limit_test=60))
    texts = majority(mixture, splits.train, splits.test)
    found = score(mixture, splits.test, texts)
    assert tuple(found) == mixture.metric_names
    for name, part in mixture.parts.items():
        rows = [(one, text) for one, text in zip(splits.test, texts, strict=True) if one.task == name]
        own = score(part, [one for one, _ in rows], [text for _, text in rows])
        assert {key: found[f"{name}/{key}"] for key in own} == own
    primary = [found[f"{name}/{part.primary}"] for name, part in mixture.parts.items()]
    assert found[mixture.primary] == pytest.approx(statistics.fmean(primary))
    low, high = interval(mixture, splits.test, texts, resamples=300, confidence=0.9, seed=1) or (1, 0)
    assert low < found[mixture.primary] < high
    assert mixture.range == (0.0, 1.0)
    assert chance(mixture) is None or chance(mixture) == statistics.fmean(
        chance(p) or 0 for p in mixture.parts.values()
    )


def test_tasks_of_one_size_are_resampled_apart() -> None:
    """What is right in one task and wrong in the other would else add up to the same in every resample."""
    mixture = task_of(check(compose(["task=mix", "++mix.tasks=[rte,boolq]"], CONF)).task)
    examples, texts = [], []
    for name, right in (("rte", 0), ("boolq", 1)):
        words = mixture.parts[name].words
        for number in range(100):
            examples.append(Example(f"{name}{number}", "a", words[0], 0, None, task=name))
            texts.append(words[0] if number % 2 == right else words[1])
    low, high = interval(mixture, examples, texts, resamples=500, confidence=0.95, seed=0) or (0, 0)
    assert 0.40 < low < 0.47 and 0.53 < high < 0.60  # a standard error of 0.035


def test_own_tasks_of_the_page_share_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/mixtures.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "task").mkdir()
    for name in ("colours", "kinds"):
        (tmp_path / f"task/{name}.yaml").write_text(text.replace("colours", name), encoding="utf-8")
        (tmp_path / "data" / name).mkdir(parents=True)
        for part in ("train", "validation", "test"):
            rows = f"text,label\n{name} {part} 1,red\n{name} {part} 2,blue\n"
            (tmp_path / f"data/{name}/{part}.csv").write_text(rows, encoding="utf-8")
    words = ["task=mix", "++mix.tasks=[colours,kinds]", "data=local", f"data.dir={tmp_path / 'data'}"]
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    config = check(compose(words, CONF))
    splits = load_all(task_of(config.task), config.data)
    assert [one.source for one in splits.test] == [
        f"colour of: {n} test {i}" for n in ("colours", "kinds") for i in (1, 2)
    ]


@pytest.mark.parametrize(
    ("sampling", "temperature", "expected"),
    [
        ("proportional", 2.0, [900, 90, 10]),
        ("equal", 2.0, [333, 334, 333]),
        ("temperature", 2.0, [703, 223, 74]),
        ("temperature", 1e-30, [1000, 0, 0]),
    ],
)
def test_tasks_are_sampled_as_configured(sampling: str, temperature: float, expected: list[int]) -> None:
    mix = MixConfig([], sampling, temperature)  # type: ignore[arg-type]
    assert counts([900, 90, 10], mix) == expected


def test_an_epoch_draws_every_task_its_share_and_resumes_anywhere() -> None:
    tasks = ["large"] * 90 + ["small"] * 10
    features = [{"index": index} for index in range(100)]
    batches = Batches(
        features, [1] * 100, list, TrainerConfig(per_device_train_batch_size=10, max_steps=25), 3,
        mix=MixConfig([], "equal"), tasks=tasks,
    )  # fmt: skip
    rows = [row for batch in batches.rows(0) for row in batch]
    assert [sum(tasks[row] == name for row in rows) for name in ("large", "small")] == [50, 50]
    assert all(rows.count(row) == 5 for row in range(90, 100))
    assert any(len({tasks[row] for row in batch}) == 2 for batch in batches.rows(0))
    assert list(batches.rows(1)) != list(batches.rows(0))
    assert list(batches.steps(0))[13:] == list(batches.steps(13))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["task=mix"], "names no task; a mixture needs at least two tasks"),
        (["task=mix", "++mix.tasks=[rte]"], "names rte; a mixture needs at least two tasks"),
        (["task=mix", "++mix.tasks=[rte,rte]"], "names rte twice"),
        (["task=mix", "++mix.tasks=[rte,wics]"], "names wics, which is no task; choose from: boolq"),
        (["task=mix", "++mix.tasks=[rte,mix]"], "names mix, which is no task"),
        (["task=mix", "++mix.tasks=[rte,qqp]"], "no miniature of task=qqp"),
        (["++mix.tasks=[rte,cb]"], "has no effect with task=rte; set task=mix"),
        (["task=mix", "++mix.tasks=[rte,cb]", "++mix.temperature=0"], "must be a positive number"),
        (["task=mix", "++mix.tasks=[rte,cb]", "++mix.sampling=evenly"], "choose from: proportional, equal"),
        (["task=mix", "++mix.tasks=[rte,cb]", "model=bert_base"], "cannot learn a mixture"),
    ],
)
def test_what_cannot_be_mixed_is_one_clear_line(words: list[str], expected: str) -> None:
    lines = [text for _, text in find_problems(compose(words, CONF))]
    assert any(expected in line for line in lines), lines


def test_a_task_of_free_text_is_refused(mixture: Mixture) -> None:
    values = plain(check(compose(["task=mix", "++mix.tasks=[rte,cb]"], CONF)))
    assert plain(check(values)) == values  # a record holds the tasks themselves
    values["task"]["parts"]["cb"]["labels"] = {}
    assert "a task of free text" in find_problems(values)[0][1]


def test_a_row_names_its_task(mixture: Mixture) -> None:
    row = {"task": "rte", "premise": "p", "hypothesis": "h"}
    (example,) = mixture.examples([("row 1", row)], require_label=False)
    assert (example.task, example.source) == ("rte", next(mixture.parts["rte"].examples([("", row)], False)).source)
    with pytest.raises(DataError, match=r'the field "task" is "rt"; it must name .* did you mean "rte"'):
        list(mixture.examples([("row 1", {**row, "task": "rt"})], require_label=False))
