"""Hydra's launcher for Ray (``hydra/launcher=ray``). Hydra imports every module of this package at each start."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from mmpt.errors import RunError


class RayLauncher(Launcher):
    """Runs each trial as a Ray task; the death of a trial's worker does not affect the others."""

    def __init__(self, init: DictConfig, remote: DictConfig) -> None:
        """Store arguments of ``ray.init``, and options of the task: ``num_cpus``, ``num_gpus`` and the like."""
        self.init, self.remote = (dict(OmegaConf.to_container(part, resolve=True)) for part in (init, remote))  # type: ignore[arg-type]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what every trial shares."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run trials, as many at once as the cluster has room for; one whose worker died has no return value."""
        import ray

        setup_globals()
        if not ray.is_initialized():
            _probe(self.init.get("address"))
            paths = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
            ray.init(**{"runtime_env": {"env_vars": paths}, **self.init})
        job = ray.remote(**self.remote)(execute) if self.remote else ray.remote(execute)
        state = Singleton.get_state()
        running = [
            job.remote(initial_job_idx + index, list(words), self.hydra_context, self.config, self.task_function, state)
            for index, words in enumerate(job_overrides)
        ]
        returns = []
        for task in running:
            try:
                returns.append(ray.get(task))
            except ray.exceptions.RayError:  # the sweep reports a trial that did not end
                returns.append(JobReturn(status=JobStatus.COMPLETED))
        return returns


def _probe(address: str | None) -> None:
    """Report at once that nothing answers at ``host:port``; Ray itself tries for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # a cluster of its own, or one that Ray looks for
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise RunError(
            f"no Ray cluster answers at hydra.launcher.init.address={address} ({error.strerror or error}); start one "
            "with `ray start --head`, or leave the address out to use this machine"
        ) from error


def execute(
    number: int,
    overrides: list[str],
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
    state: dict[Any, Any],
) -> JobReturn:
    """Run one trial in a worker process."""
    setup_globals()
    Singleton.set_state(state)
    composed = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    HydraConfig.instance().set_config(composed)
    done = run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    return done
