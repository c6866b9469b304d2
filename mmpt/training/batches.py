"""Which examples each optimizer step sees: a function of the seed and the step, so that a run resumes anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mmpt.config.schema import MixConfig, TrainerConfig
from mmpt.data.mixture import draw

Batch = dict[str, Tensor]
WINDOW = 50  # batches within which group_by_length sorts


@dataclass(frozen=True)
class Batches:
    """The training batches of one process; counts of examples are those of all processes together."""

    features: Sequence[Any]  # all N tokenised examples
    lengths: Sequence[int]  # source tokens of each
    collate: Callable[[Sequence[Any]], Batch]  # makes the tensors of a batch of features
    settings: TrainerConfig  # trainer.*
    seed: int  # of the order
    rank: int = 0  # this process's number
    processes: int = 1  # how many processes share each step
    mix: MixConfig = field(default_factory=MixConfig)  # how the tasks of a mixture are sampled
    tasks: Sequence[str] = ()  # the task of each example of a mixture; empty without one

    @property
    def examples_per_pass(self) -> int:
        """Examples of one forward pass."""
        return self.settings.per_device_train_batch_size * self.processes

    @property
    def examples_per_step(self) -> int:
        """Examples of one optimizer step."""
        return self.examples_per_pass * self.settings.gradient_accumulation_steps

    @property
    def passes_per_epoch(self) -> int:
        """Forward passes of each process in an epoch, at least 1."""
        whole = len(self.features) / self.examples_per_pass
        return max(1, math.floor(whole) if self.settings.dataloader_drop_last else math.ceil(whole))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last one may have fewer passes."""
        return math.ceil(self.passes_per_epoch / self.settings.gradient_accumulation_steps)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        if self.settings.max_steps > 0:
            return self.settings.max_steps
        return math.ceil(self.steps_per_epoch * self.settings.num_train_epochs)

    def steps(self, done: int) -> Iterator[list[Batch]]:
        """The batches of each optimizer step after the first ``done`` steps, in host memory."""
        accumulation = self.settings.gradient_accumulation_steps
        while done < self.total_steps:
            epoch, skipped = divmod(done, self.steps_per_epoch)
            group: list[Batch] = []
            for number, batch in enumerate(self._load(self.rows(epoch)[skipped * accumulation :]), start=1):
                group.append(batch)
                if len(group) == accumulation or skipped * accumulation + number == self.passes_per_epoch:
                    yield group
                    done, group = done + 1, []
                    if done == self.total_steps:
                        return

    def rows(self, epoch: int) -> list[list[int]]:
        """The examples of each of this process's passes in an epoch."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(len(self.features), generator=generator).tolist()
        if self.tasks and self.mix.sampling != "proportional":  # which all examples of an epoch are
            drawn = draw(order, self.tasks, self.mix)
            order = [drawn[index] for index in torch.randperm(len(drawn), generator=generator)]
        if self.settings.group_by_length:
            order = self._grouped(order, generator)
        size = self.examples_per_pass
        if self.processes > 1 or (self.settings.dataloader_drop_last and len(order) < size):
            order += (order * size)[: -len(order) % size]  # every process has a full batch
        shares = [order[start : start + size] for start in range(0, len(order), size)]
        first, last = (self.settings.per_device_train_batch_size * (self.rank + more) for more in (0, 1))
        return [share[first:last] for share in shares[: self.passes_per_epoch]]

    def _grouped(self, order: list[int], generator: torch.Generator) -> list[int]:
        """Neighbours of similar length: sorted within windows, whose batches are shuffled."""
        size = self.examples_per_pass
        windows = [order[start : start + size * WINDOW] for start in range(0, len(order), size * WINDOW)]
        ordered = [row for window in windows for row in sorted(window, key=self.lengths.__getitem__)]
        full = len(order) // size
        blocks = [ordered[size * block : size * (block + 1)] for block in torch.randperm(full, generator=generator)]
        return [row for block in blocks for row in block] + ordered[size * full :]

    def _load(self, rows: list[list[int]]) -> Iterator[Batch]:
        workers = self.settings.dataloader_num_workers
        loader: DataLoader[Any] = DataLoader(
            self.features,  # type: ignore[arg-type]  # any sequence will do
            batch_sampler=rows,
            collate_fn=self.collate,
            num_workers=workers,
            prefetch_factor=self.settings.dataloader_prefetch_factor if workers else None,
            generator=torch.Generator().manual_seed(self.seed),  # the workers' seeds; the global one is left alone
        )
        yield from loader
