"""The fingerprint moves with what decides a result, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmpt.config.schema import Config
from mmpt.training.fingerprint import run_fingerprint, setting_key
from mmpt.training.settings import check, plain


@pytest.mark.parametrize(
    "word",
    [
        "seed=2",
        "task=cb",
        "method.lr.masks=0.1",
        "method.num_virtual_tokens=11",
        "model.dropout=backbone",
        "optimizer=adamw",
        "scheduler.warmup=0.1",
        "data.limit_train=5",
        "evaluation.best_by=loss",
        "trainer.max_steps=5",
        "trainer.label_smoothing_factor=0.1",
        "trainer.loss=label_ranking",
        "trainer.eval_strategy=steps",
        "cache.dtype=bfloat16",
        "method.layers=last_1",
    ],
)
def test_moves(word: str, config_of: Callable[..., Config]) -> None:
    assert run_fingerprint(config_of(word)) != run_fingerprint(config_of())


@pytest.mark.parametrize(
    "word",
    [
        "run.dir=elsewhere",
        "run.overwrite=true",
        "run.retry_oom=true",
        "logger=none",
        "trainer.logging_steps=3",
        "trainer.dataloader_num_workers=1",
        "trainer.save_steps=7",
        "cache=ram",
        "cache=off",
        "cache.dir=elsewhere",
        "cache.max_gb=1",
    ],
)
def test_stays(word: str, config_of: Callable[..., Config]) -> None:
    assert run_fingerprint(config_of(word)) == run_fingerprint(config_of())


def test_no_cache_counts_with_mixed_precision_alone(config_of: Callable[..., Config]) -> None:
    """Cached states are computed without it."""
    disk, ram, off = (
        run_fingerprint(config_of("trainer.bf16=true", f"cache={mode}")) for mode in ("disk", "ram", "off")
    )
    assert disk == ram != off


@pytest.mark.parametrize("word", ["task.shots=2", "task.missing=skip"])
def test_how_texts_are_read_tells_settings_apart(word: str, config_of: Callable[..., Config]) -> None:
    """The fingerprint of a run has their data; rows of a table have no other sign of it."""
    assert setting_key(plain(config_of(word))) != setting_key(plain(config_of()))
    assert setting_key(plain(config_of(word, "seed=2"))) == setting_key(plain(config_of(word)))


def test_the_interval_of_evaluations_counts_wherever_it_comes_from(config_of: Callable[..., Config]) -> None:
    steps = "trainer.eval_strategy=steps"
    five = run_fingerprint(config_of(steps, "trainer.eval_steps=5"))
    assert five == run_fingerprint(config_of(steps, "trainer.logging_steps=5"))
    assert five != run_fingerprint(config_of(steps, "trainer.logging_steps=30"))
    assert five == run_fingerprint(config_of(steps, "trainer.eval_steps=5", "trainer.logging_steps=30"))


def test_is_the_same_after_saving(config_of: Callable[..., Config]) -> None:
    config = config_of("experiment=paper/rte")
    assert run_fingerprint(check(plain(config))) == run_fingerprint(config)


def test_spelling_a_default_out_changes_nothing(config_of: Callable[..., Config]) -> None:
    assert run_fingerprint(config_of("method.top_k=1", "seed=1")) == run_fingerprint(config_of())


def test_a_preset_counts_by_its_values(config_of: Callable[..., Config]) -> None:
    values = plain(config_of("experiment=smoke"))
    values["experiment"] = None
    assert run_fingerprint(check(values)) == run_fingerprint(config_of("experiment=smoke"))


def test_the_type_of_stored_states_counts_only_where_some_are_stored(config_of: Callable[..., Config]) -> None:
    assert run_fingerprint(config_of("cache=off", "cache.dtype=bfloat16")) == run_fingerprint(config_of())


def test_what_only_heads_read_counts_for_them_alone(config_of: Callable[..., Config]) -> None:
    pair = ["task.pair=['{hypothesis}','{premise}']"]
    assert run_fingerprint(config_of()) == run_fingerprint(config_of(*pair))
    assert run_fingerprint(config_of("model=bert_base")) != run_fingerprint(config_of("model=bert_base", *pair))
