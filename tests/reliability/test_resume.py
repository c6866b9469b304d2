"""A run that is killed at any moment, and started again by the same command, ends as one that nobody disturbed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.faults import Bomb, command, figures

SMALL = ["data.limit_train=40", "data.limit_validation=16", "data.limit_test=16", "evaluation.bootstrap=0"]
# five steps an epoch and a log line every four, so that a line spans two epochs, and two processes that kill between
FIXED = [*SMALL, "evaluation.batch_size=8", "trainer.per_device_train_batch_size=8", "trainer.logging_steps=4"]
FIXED += ["trainer.num_train_epochs=3", "evaluation.patience=2", "logger=none"]
KINDS = ("step", "evaluation", "encoder", "checkpoint", "cache", "file")


def words(root: Path, name: str, *more: str) -> list[str]:
    """A run with a directory and a cache of its own."""
    return [*FIXED, *more, f"run.dir='{root / name}'", f"cache.dir='{root / name}-data/cache/'"]


def undisturbed(root: Path, *more: str, ranks: int = 1) -> tuple[dict[str, Any], dict[str, int]]:
    """What a run leaves, and how many events of each kind it has."""
    assert set(command(root, words(root, "whole", *more), Bomb(), ranks)) == {0}, said(root)
    return figures(root / "whole"), json.loads((root / "events.json").read_text(encoding="utf-8"))


def said(root: Path) -> str:
    return (root / "output.txt").read_text(encoding="utf-8")[-3000:]


def disturbed(root: Path, bombs: list[Bomb], *more: str, ranks: int = 1) -> dict[str, Any]:
    """What a run leaves that each bomb hits in turn, where it lives long enough for that."""
    for bomb in [*bombs, None]:
        codes = command(root, words(root, "hit", *more), bomb, ranks)
        # a process may see that its peer was killed before it is killed itself
        assert set(codes) <= {0, -9} or (ranks > 1 and -9 in codes), said(root)
    assert set(codes) == {0}
    return figures(root / "hit")


def test_killed_at_a_few_moments(tmp_path: Path, whole: tuple[dict[str, Any], dict[str, int]]) -> None:
    """While the cache fills, before the first checkpoint, behind it, and in the middle of the next."""
    found, events = whole
    bombs = [Bomb("cache", events["cache"] // 2), Bomb("step", 3), Bomb("step", 17)]
    assert disturbed(tmp_path, [*bombs, Bomb("checkpoint", events["checkpoint"] // 6)]) == found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_at_twenty_random_moments(tmp_path: Path, ranks: int, seed: int) -> None:
    whole, events = undisturbed(tmp_path, ranks=ranks)
    draw = random.Random(seed)
    kinds = [KINDS[number % len(KINDS)] for number in range(20)]
    draw.shuffle(kinds)
    # none of the later moments: a killed run has done some of its work, and should still be hit; of two ranks, either
    # may be the one that fills the cache
    bombs = [Bomb(kind, draw.randrange(-(-events.get(kind, 1) // 4)), rank=draw.randrange(ranks)) for kind in kinds]
    assert disturbed(tmp_path, bombs, ranks=ranks) == whole


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_while_wandb_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    whole, events = undisturbed(tmp_path, "logger=wandb")
    draw = random.Random(0)
    bombs = [Bomb("wandb", draw.randrange(events["wandb"] // 2)) for _ in range(4)]
    assert disturbed(tmp_path, bombs, "logger=wandb") == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["trainer.eval_strategy=steps", "trainer.eval_steps=3", "trainer.max_steps=11"],
        ["trainer.gradient_accumulation_steps=2", "method=smop", "optimizer=adamw"],
        ["model.dropout=backbone", "method=prefix"],
        ["trainer.eval_strategy=no", "trainer.save_steps=4", "evaluation.patience=null"],
        ["evaluation.patience=1", "evaluation.best_by=loss", "method.lr.prefix=3.0", "trainer.num_train_epochs=8"],
    ],
    ids=lambda more: more[0],
)
def test_killed_in_other_settings(tmp_path: Path, more: list[str]) -> None:
    """What each leaves behind differs: steps or epochs, accumulated gradients, dropout, no evaluation, an early end."""
    whole, events = undisturbed(tmp_path, *more)
    draw = random.Random(2)
    kinds = ("step", "checkpoint", "evaluation", "step", "file")
    bombs = [Bomb(kind, draw.randrange(-(-events[kind] // 2))) for kind in kinds]
    assert disturbed(tmp_path, bombs, *more) == whole


@pytest.mark.slow
def test_killed_once_training_is_over(tmp_path: Path) -> None:
    """The test split remains: an early end stays an end, and no step is added to max_steps."""
    for number, more in enumerate((["evaluation.patience=1", "method.lr.prefix=3.0"], ["trainer.max_steps=7"])):
        (root := tmp_path / str(number)).mkdir()
        whole, events = undisturbed(root, *more)
        assert disturbed(root, [Bomb("evaluation", events["evaluation"] - 1)], *more) == whole
