"""The launcher ``hydra/launcher=pack``: several trials at once in one process (:mod:`mmpt.training.pack`).

It lies here because Hydra looks for plugins nowhere else.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from mmpt.config.check import check
from mmpt.errors import ConfigError

SETTINGS = {"_target_": "hydra_plugins.mmpt_pack.PackLauncher", "size": 4}  # hydra.launcher.size: trials of a pack
ConfigStore.instance().store(group="hydra/launcher", name="pack", node=SETTINGS, provider="mmpt")


class PackLauncher(Launcher):
    """Runs trials that share a frozen backbone in packs, and all others one after another."""

    def __init__(self, size: int) -> None:
        """Take the number of trials of a pack.

        Raises:
            ConfigError: It is no positive whole number.
        """
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ConfigError(f"hydra.launcher.size={size} must be a whole number of at least 1")
        self.size = size
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all trials; returns what each gave, in order. A trial's error ends no other trial."""
        setup_globals()
        assert self.config is not None
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        jobs = [self._compose(overrides, initial_job_idx + place) for place, overrides in enumerate(job_overrides)]
        before = HydraConfig.instance().cfg
        results: list[JobReturn] = []
        for name, group in groupby(jobs, key=_table):
            together = list(group)
            width = 1 if name is None else self.size
            for first in range(0, len(together), width):
                results += self._run(together[first : first + width])
        HydraConfig.instance().cfg = before  # each trial restored what it found, in the order of their ends
        return results

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def _run(self, jobs: Sequence[DictConfig]) -> list[JobReturn]:
        if len(jobs) == 1:
            return [self._job(jobs[0])]
        from mmpt.training.pack import Pack  # imports torch

        pack = Pack({f"[{job.hydra.job.num}] ": functools.partial(self._job, job) for job in jobs})
        return [seat.result if seat.error is None else _failed(seat.error) for seat in pack.run()]

    def _job(self, config: DictConfig) -> JobReturn:
        assert self.hydra_context is not None
        assert self.task_function is not None
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


def _table(config: DictConfig) -> str | None:
    """What a trial must share with its neighbours in a pack; None for one that runs by itself."""
    values: Any = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        checked = check(values)
    except ConfigError:
        return None  # told when its turn comes
    from mmpt.training.pack import table

    return table(checked)


def _failed(error: BaseException) -> JobReturn:
    result = JobReturn()
    result.return_value, result.status = error, JobStatus.FAILED
    return result
