from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mmpt.config.schema import LoggerConfig
from tests.runs.loggers.example import end, start, steps

pytestmark = pytest.mark.skipif(find_spec("trackio") is None, reason="the extra 'trackio' isn't installed")


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database of our own; trackio fixes its place when it is imported, which is why no other file imports it."""
    assert "trackio" not in sys.modules
    folder = tmp_path_factory.mktemp("trackio database")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(folder))
        yield folder


@pytest.fixture
def config(request: pytest.FixtureRequest) -> LoggerConfig:
    """A project for each test."""
    return LoggerConfig(trackio=True, project=request.node.name)


def runs(project: str) -> dict[str, list[dict[str, Any]]]:
    from trackio.sqlite_storage import SQLiteStorage

    return {name: SQLiteStorage.get_logs(project, name) for name in SQLiteStorage.get_runs(project)}


def test_everything_is_in_the_database(
    tmp_path: Path, database: Path, config: LoggerConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    said: list[str] = []
    loggers = start(tmp_path / "run", config, said)
    steps(loggers, 1, 2, 3)
    end(loggers, tmp_path / "run")
    assert said == [] and capfd.readouterr() == ("", "")
    ((name, rows),) = runs(config.project).items()
    assert name.startswith("rte-1-")
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [1.0, 0.5, 1 / 3]
    assert [row["step"] for row in rows if "masks/decoder" in row] == [1, 2, 3]
    (table,) = [row["predictions"] for row in rows if "predictions" in row]
    assert table["_type"] == "trackio.table" and table["_value"][0]["prediction"] == "entailment"
    assert rows[-1]["test/score"] == 0.5
    stored = SQLiteStorage.get_run_config(config.project, name)
    assert stored["task"] == {"name": "rte"} and stored["_Group"] == "rte"
    assert len([path for path in database.rglob("*.png") if config.project in path.parts]) == 3


def test_a_resumed_run_has_each_step_once(tmp_path: Path, config: LoggerConfig) -> None:
    first = start(tmp_path / "run", config, [])
    steps(first, 1, 2, 3, 4)
    first.finish("interrupted")
    loggers = start(tmp_path / "run", config, [], resume_step=2)
    steps(loggers, 3, 4, 5)
    loggers.finish("done")
    ((_, rows),) = runs(config.project).items()
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4, 5]


def test_runs_of_one_name_stay_apart(tmp_path: Path, config: LoggerConfig) -> None:
    for folder in ("a", "b"):
        loggers = start(tmp_path / folder, config, [])
        steps(loggers, 1)
        loggers.finish("done")
    assert len(runs(config.project)) == 2
