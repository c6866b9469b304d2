"""What lies in sweeps/: each definition composes, and W&B's agent makes commands of its files that train.py reads."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmpt.cli import CONF, SWEEPS
from mmpt.config.compose import compose, read_command_line
from mmpt.sweep.plan import plan_sweep, register_sweeps, sweep_options
from mmpt.training.settings import check

WANDB = sorted((SWEEPS / "wandb").glob("*.yaml"))
COUNTS = {
    "ablate": 30,
    "compare": 144,
    "improve": 92,
    "mix": 55,
    "options": 66,
    "paper": 90,
    "rates": 96,
    "routes": 60,
    "tune": 30,
}


@pytest.fixture(autouse=True)
def registered() -> None:
    register_sweeps(SWEEPS, CONF)


def test_every_definition_is_named_here() -> None:
    assert sweep_options(SWEEPS)["sweep"] == sorted(COUNTS)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_one_short_command_counts_its_trials(name: str) -> None:
    if name == "tune":
        pytest.importorskip("optuna", reason="needs the extra optuna")
    line = read_command_line([f"sweep={name}"], CONF, sweep_options(SWEEPS))
    assert line.multirun and "--multirun" in line.flags and not line.problems
    assert plan_sweep(line, CONF).total == COUNTS[name]
    assert f"python train.py sweep={name}" in (SWEEPS / f"{name}.yaml").read_text(encoding="utf-8")


def test_words_of_the_command_replace_those_of_the_definition() -> None:
    line = read_command_line(
        ["sweep=compare", "setting=compare/smop", "seed=1,2", "task=rte,cb"], CONF, sweep_options(SWEEPS)
    )
    assert plan_sweep(line, CONF).total == 4
    line = read_command_line(["sweep=ablate", "seed=5"], CONF, sweep_options(SWEEPS))
    assert plan_sweep(line, CONF).total == 10


def test_a_setting_wins_over_its_sweep() -> None:
    config = check(compose(["sweep=mix", "setting=mix/mixed_prefix"], CONF))
    assert (config.trainer.max_steps, config.trainer.eval_steps) == (800, 50)


@pytest.mark.parametrize("setting", sweep_options(SWEEPS)["setting"])
def test_every_setting_can_run(setting: str) -> None:
    sweep, _, name = setting.partition("/")
    own_task = {"mix": "mix" if name.startswith("mixed") else name}.get(sweep)  # which such a setting chooses
    words = [f"sweep={sweep}", f"setting={setting}", *([] if own_task else ["task=cb"])]
    config = check(compose(words, CONF))
    assert config.task.name == (own_task or "cb")
    if setting.startswith("paper/"):
        assert (config.model.name, config.model.dropout) == ("t5_base", "backbone")
        assert getattr(config.method.options, "layout", "paper") == "paper"
        assert config.evaluation.decoding == ["generation"]


def assignment(path: Path) -> dict[str, Any]:
    """What W&B's server sends an agent: one value for each parameter."""
    parameters = yaml.safe_load(path.read_text(encoding="utf-8"))["parameters"]
    values = {name: given["values"][-1] if "values" in given else given["min"] for name, given in parameters.items()}
    return {"args": {name: {"value": value} for name, value in values.items()}, "program": "train.py", "run_id": "abc"}


@pytest.mark.parametrize("path", WANDB, ids=lambda path: path.stem)
def test_wandb_makes_a_command_that_train_reads(path: Path) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sent = assignment(path)
    words = create_sweep_command(yaml.safe_load(path.read_text(encoding="utf-8"))["command"])
    filled = create_sweep_command_args(sent) | {"env": [], "interpreter": [], "program": []}
    words = [word for part in words for word in (filled[part[2:-1]] if part.startswith("${") else [part])]
    line = read_command_line(words, CONF, sweep_options(SWEEPS))
    assert not line.problems and not line.multirun
    config = check(compose(line.overrides, CONF))
    wanted = {name: given["value"] for name, given in sent["args"].items()}
    for name, value in wanted.items():
        key = name.removeprefix("method.")
        found = {
            **asdict(config.method.options),
            **{f"lr.{k}": v for k, v in config.method.lr.items()},
            "seed": config.seed,
        }
        assert found.get(key, config.method.name) == value


def test_the_wandb_search_is_the_search_of_tune() -> None:
    sent = set(yaml.safe_load((SWEEPS / "wandb" / "tune.yaml").read_text(encoding="utf-8"))["parameters"])
    ours = yaml.safe_load((SWEEPS / "tune.yaml").read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
    assert sent == set(ours)


@pytest.mark.slow
def test_wandbs_own_agent_runs_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.wandb_agent import Agent

    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR", "WANDB_SWEEP_ID"):
        monkeypatch.setenv(name, str(tmp_path) if name == "WANDB_DIR" else "abc")
    agent = Agent(api=None, queue=None)
    command = yaml.safe_load((SWEEPS / "wandb" / "tune.yaml").read_text(encoding="utf-8"))["command"]
    agent._sweep_command = [*command, "experiment=smoke", "trainer.max_steps=2", f"run.dir={tmp_path / 'r'}"]
    agent._command_run(assignment(SWEEPS / "wandb" / "tune.yaml") | {"program": str(root / "train.py")})
    (process,) = agent._run_processes.values()
    while process.poll() is None:
        time.sleep(0.2)
    assert process.poll() == 0
    stored = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text(encoding="utf-8"))
    assert stored["method"]["num_virtual_tokens"] == 50 and stored["method"]["lr"]["prefix"] == 0.005
