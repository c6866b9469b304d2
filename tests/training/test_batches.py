"""The order of training examples: a function of seed and step, shared by processes, the same after a resume."""

from __future__ import annotations

from itertools import chain, islice
from typing import Any

import pytest
import torch

from mmpt.config.schema import TrainerConfig
from mmpt.training.batches import Batches

LENGTHS = [3, 9, 4, 8, 5, 7, 6, 1, 2, 10, 12]


def collate(features: list[int]) -> dict[str, torch.Tensor]:
    return {"rows": torch.tensor(features)}


def batches(rank: int = 0, processes: int = 1, **settings: Any) -> Batches:
    chosen = TrainerConfig(**{"per_device_train_batch_size": 2, "num_train_epochs": 3, **settings})
    return Batches(list(range(len(LENGTHS))), LENGTHS, collate, chosen, 1, rank, processes)


def steps(given: Batches, done: int = 0) -> list[list[list[int]]]:
    return [[batch["rows"].tolist() for batch in step] for step in given.steps(done)]


def test_an_epoch_has_every_example_once_in_another_order_than_the_next() -> None:
    given = batches()
    first, second = (list(chain(*given.rows(epoch))) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(11)) and first != second
    assert given.steps_per_epoch == 6 and given.total_steps == 18 == len(steps(given))


def test_the_order_is_that_of_accelerate() -> None:
    from accelerate.data_loader import SeedableRandomSampler

    sampler = SeedableRandomSampler(range(11), generator=torch.Generator(), data_seed=1)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert list(sampler) == list(chain(*batches().rows(epoch)))


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 4}, {"group_by_length": True}])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resume_continues_the_order(settings: dict[str, Any], workers: int) -> None:
    given = batches(dataloader_num_workers=workers, **settings)
    whole = steps(given)
    for done in (1, 2, 3, 5, len(whole)):
        assert steps(given, done) == whole[done:]


def test_the_last_step_of_an_epoch_takes_what_is_left() -> None:
    assert [len(step) for step in islice(steps(batches(gradient_accumulation_steps=4)), 3)] == [4, 2, 4]


@pytest.mark.parametrize("grouped", [False, True])
def test_two_processes_share_what_one_would_have(grouped: bool) -> None:
    one = list(batches(per_device_train_batch_size=4, group_by_length=grouped).rows(0))
    two = [list(batches(rank, 2, group_by_length=grouped).rows(0)) for rank in (0, 1)]
    together = [left + right for left, right in zip(*two, strict=True)]
    assert together[:2] == one[:2]
    assert len(together) == 3 and together[2][:3] == one[2]  # filled up, so that both have a full batch
    assert all(len(rows) == 2 for rows in chain(*two))


def test_drop_last_leaves_out_what_is_not_full() -> None:
    given = batches(dataloader_drop_last=True)
    assert given.steps_per_epoch == 5 and [len(rows) for rows in given.rows(0)] == [2] * 5


def test_group_by_length_makes_batches_of_similar_lengths() -> None:
    def spread(given: Batches) -> int:
        return sum(max(lengths) - min(lengths) for rows in given.rows(0) if (lengths := [LENGTHS[row] for row in rows]))

    assert spread(batches(group_by_length=True)) == 5 < spread(batches())
    assert sorted(chain(*batches(group_by_length=True).rows(0))) == list(range(11))


def test_max_steps_wins_over_epochs() -> None:
    assert len(steps(batches(max_steps=8))) == 8
    assert batches(num_train_epochs=0.5).total_steps == 3
