"""Which examples each optimizer step sees: a function of the seed and the step, so that a run resumes anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
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
    lengths: Sequence[int] | np.ndarray  # source tokens of each
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
            for number, batch in enumerate(self._load(self.rows(epoch, skipped * accumulation)), start=1):
                group.append(batch)
                if len(group) == accumulation or skipped * accumulation + number == self.passes_per_epoch:
                    yield group
                    done, group = done + 1, []
                    if done == self.total_steps:
                        return

    def rows(self, epoch: int, skipped: int = 0) -> Iterator[list[int]]:
        """The examples of each of this process's passes in an epoch, but for the first ``skipped`` passes."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(len(self.features), generator=generator)
        if self.tasks and self.mix.sampling != "proportional":  # which all examples of an epoch are
            drawn = torch.tensor(draw(order.tolist(), self.tasks, self.mix))
            order = drawn[torch.randperm(len(drawn), generator=generator)]
        if self.settings.group_by_length:
            order = self._grouped(order, generator)
        size, own = self.examples_per_pass, self.settings.per_device_train_batch_size
        if self.processes > 1 or (self.settings.dataloader_drop_last and len(order) < size):
            order = torch.cat([order, order[torch.arange(-len(order) % size) % len(order)]])  # all have a full batch
        for number in range(skipped, self.passes_per_epoch):
            first = number * size + self.rank * own
            yield order[first : first + own].tolist()

    def _grouped(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """Neighbours of similar length: sorted within windows, whose batches are shuffled."""
        size = self.examples_per_pass
        window, lengths = np.arange(len(order)) // (size * WINDOW), np.asarray(self.lengths)
        ordered = order[torch.from_numpy(np.lexsort((lengths[order.numpy()], window)))]
        full = len(order) // size
        blocks = ordered[: size * full].view(full, size)[torch.randperm(full, generator=generator)]
        return torch.cat([blocks.flatten(), ordered[size * full :]])

    def _load(self, rows: Iterable[list[int]]) -> Iterator[Batch]:
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
