"""The launcher ``hydra/launcher=pack``: several trials at once in one process (:mod:`mmpt.training.pack`).

It lies here because Hydra looks for plugins nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from mmpt.config.check import check
from mmpt.config.fingerprint import run_fingerprint
from mmpt.errors import ConfigError
from mmpt.sweep.isolation import isolated

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
        for pack in self._packs(jobs):
            results += self._run(pack)
            HydraConfig.instance().cfg = before  # each trial restored what it found, in the order of their ends
        return results

    def _packs(self, jobs: Sequence[DictConfig]) -> list[list[DictConfig]]:
        """Neighbours that can be stacked, at most ``size`` of them, and no run twice: it would meet its own lock."""
        packs: list[list[DictConfig]] = []
        before: str | None = None
        runs: set[str] = set()
        tables = [_table(job) for job in jobs]
        if alone := sum(name is None and run != "" for name, run in tables):
            print(
                f"pack: {alone} of {len(jobs)} trials can't be stacked and run one by one (docs/scale.md)", flush=True
            )
        for job, (name, run) in zip(jobs, tables, strict=True):
            if name is None or name != before or run in runs or len(packs[-1]) == self.size:
                packs.append([])
                runs = set()
            packs[-1].append(job)
            runs.add(run)
            before = name
        return packs

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

        works = {f"[{job.hydra.job.num}] ": functools.partial(self._job, job) for job in jobs}
        with isolated(), contextlib.chdir(Path.cwd()):
            return [seat.result if seat.error is None else _failed(seat.error) for seat in Pack(works).run()]

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


def _table(config: DictConfig) -> tuple[str | None, str]:
    """What a trial must share with its neighbours in a pack (None: it runs by itself), and its run's fingerprint."""
    values: Any = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)  # for ${hydra:job.num} and its like
    try:
        checked = check(values)
    except ConfigError:
        return None, ""  # told when its turn comes
    finally:
        HydraConfig.instance().cfg = before
    from mmpt.training.pack import table

    return table(checked), run_fingerprint(checked)


def _failed(error: BaseException) -> JobReturn:
    result = JobReturn()
    result.return_value, result.status = error, JobStatus.FAILED
    return result
