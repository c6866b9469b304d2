"""The dashboard: its view as JSON, against what a real run logs, and saved to a stand-in for W&B."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mmpt.cli import main as train
from mmpt.methods import names as method_names
from mmpt.runs import dashboard, names
from tests.commands import dashboard as main
from tests.runs import wandb_offline

needs_workspaces = pytest.mark.skipif(
    find_spec("wandb_workspaces") is None, reason="the extra 'dashboard' isn't installed"
)
SHORT = ["data.limit_train=32", "data.limit_validation=16", "data.limit_test=16", "evaluation.bootstrap=0"]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """W&B without a key, and with nothing from an earlier test."""
    import wandb

    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    wandb.teardown()


def save(*arguments: str) -> dict[str, Any]:
    """What the stand-in for W&B gets; :func:`server` must be running."""
    assert main(["--project", "mine", *arguments]) == 0
    saved = Server.saved[-1]
    return {**saved, "spec": json.loads(saved["spec"])}


def panels(view: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for part in view["spec"]["section"]["panelBankConfig"]["sections"] for panel in part["panels"]]


def flat(values: dict[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for key, value in values.items():
        keys |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
    return keys


def run_of(config: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """A run as W&B's server describes it."""
    empty = dict.fromkeys(("sweepName", "group", "jobType", "commit", "description", "notes"))
    wrapped = {key: {"value": value} for key, value in config.items()}
    fixed: dict[str, Any] = {
        "id": "1",
        "projectId": "1",
        "name": "a",
        "displayName": "a",
        "state": "finished",
        "readOnly": False,
    }
    fixed |= {"tags": [], "user": {"name": "me", "username": "me"}}
    times = {"createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00", "historyLineCount": 1}
    texts = {"config": json.dumps(wrapped), "summaryMetrics": json.dumps(summary), "systemMetrics": "{}"}
    return {**empty, **fixed, **times, **texts}


class Server(BaseHTTPRequestHandler):
    """As much of W&B as reading runs and saving a view takes; it refuses every key where it is told to."""

    refuses = False
    runs: list[dict[str, Any]]
    asked: list[dict[str, Any]]
    saved: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = json.loads(body) if self.path == "/graphql" else {"query": ""}
        if "upsertView" in request["query"]:
            self.saved.append(request["variables"])
        if "query Runs" in request["query"]:
            self.asked.append(request["variables"])
        page = {"edges": [{"node": run, "cursor": "1"} for run in self.runs], "pageInfo": {"hasNextPage": False}}
        answer = {
            "project": {"internalId": "1", "runCount": len(self.runs), "readOnly": False, "runs": page},
            "viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}},
            "upsertView": {"view": {"id": "1", "name": "nw-abc-v"}, "inserted": True},
        }
        content = json.dumps({"errors": [{"message": "unknown key"}]} if self.refuses else {"data": answer}).encode()
        self.send_response(401 if self.refuses else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    for name in ("runs", "asked", "saved"):
        monkeypatch.setattr(Server, name, [], raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{running.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@needs_workspaces
def test_every_panel_shows_what_a_run_logs(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    words = [*SHORT, "trainer.max_steps=2", "trainer.logging_steps=1", "trainer.eval_strategy=steps"]
    words += ["trainer.eval_steps=2", "method.sites=[encoder,decoder,cross]", "logger.mode=offline"]
    assert train([f"run.dir='{tmp_path / 'run'}'", *words]) == 0
    logged = {key.removesuffix("._type") for row in wandb_offline.history(tmp_path / "run") for key in row}
    summary = set(wandb_offline.summary(tmp_path / "run"))
    config = wandb_offline.config(tmp_path / "run")
    settings = flat(config)
    Server.runs = [run_of(config, {key.split(".")[0]: 1.0 for key in summary})]
    view = panels(save())
    masks = [f"masks: {site}" for site in ("cross", "decoder", "encoder")]
    titles = [panel["config"]["chartTitle"] for panel in view]
    assert [one for one in titles if one.startswith(("masks", "hyper"))] == [*masks, "hyperparameters: multimask"]
    for panel in view:
        shown, title = panel["config"], panel["config"]["chartTitle"]
        if "metricRegex" in shown:
            assert any(re.fullmatch(shown["metricRegex"], key) for key in logged), title
        if panel["viewType"] == "Run History Line Plot":
            assert {shown["xAxis"], *shown["metrics"]} <= logged, title
        elif panel["viewType"] == "Media Browser":
            assert set(shown["mediaKeys"]) <= logged, title
        elif panel["viewType"] == "Bar Chart":
            assert set(shown["metrics"]) <= summary, title
        elif panel["viewType"] == "Scatter Plot":
            assert {shown["xAxis"], shown["yAxis"]} <= {f"summary:{key}" for key in summary}, title
        elif title == "hyperparameters: multimask":
            columns = {column["accessor"].replace(".value.", ".") for column in shown["columns"]}
            assert columns <= {f"summary:{key}" for key in summary} | {f"config:{key}" for key in settings}
    every = logged | summary
    of_mixtures = {names.ROUTE_OF_TASK}  # tests/training/test_mixture_runs.py
    for name in {value for key, value in vars(names).items() if key.isupper()} - of_mixtures:
        assert any(re.fullmatch(names.pattern(name), key) for key in every), name


@needs_workspaces
def test_view_has_every_kind_of_panel(server: ThreadingHTTPServer) -> None:
    view = save("--entity", "team")
    assert (view["entityName"], view["projectName"]) == ("team", "mine")
    titles = {panel["config"]["chartTitle"]: panel for panel in panels(view)}
    assert not any(title.startswith(("masks", "hyperparameters")) for title in titles)  # nothing ran
    band = titles["validation score"]["config"]
    assert (band["groupBy"], band["groupAgg"], band["groupArea"]) == ("group", "mean", "stddev")
    assert {"test score", "training loss", "step time, ms"} <= set(titles)
    assert any("route load" in title for title in titles)


@needs_workspaces
def test_methods_and_masks_are_those_that_ran(server: ThreadingHTTPServer) -> None:
    """Methods of the user's own, which only their runs describe, and masks by keys and values."""
    options = {"name": "mine", "rank": 4, "scale": 0.5, "flag": True, "lr": {"core": 0.1}}
    heat = {f"masks/self_{kind}": {"_type": "image-file"} for kind in ("keys", "values")}
    Server.runs = [run_of({"method": options}, {**heat, "test/score": 0.5})]
    Server.runs += [run_of({"method": {**options, "lr": {"head": 0.1}}}, {}), run_of({"method": "odd"}, {})]
    shown = {
        panel["config"]["chartTitle"]: panel["config"] for panel in panels(save("--entity", "me", "--task", "rte"))
    }
    assert [title for title in shown if title.startswith("hyperparameters")] == ["hyperparameters: mine"]
    columns = [column["accessor"] for column in shown["hyperparameters: mine"]["columns"]]
    keys = ("name", "rank", "lr.core", "lr.head")
    assert columns == [*(f"config:method.value.{key}" for key in keys), "summary:best/validation_score"]
    assert [title for title in shown if title.startswith("masks")] == ["masks: self_keys", "masks: self_values"]
    assert shown["masks: self_keys"]["mediaKeys"] == ["masks/self_keys"]
    (asked,) = Server.asked
    assert (asked["entity"], asked["project"], json.loads(asked["filters"])) == (
        "me",
        "mine",
        {"tags": {"$in": ["rte"]}},
    )


@needs_workspaces
def test_one_task_is_compared_by_method(server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    view = save("--task", "rte")
    (runs,) = view["spec"]["section"]["runSets"]
    (only,) = runs["filters"]["filters"]
    assert (only["key"]["name"], only["value"]) == ("tags", ["rte"])
    assert {p["config"]["groupBy"] for p in panels(view) if "groupBy" in p["config"]} == {"method.value.name"}
    assert main(["--project", "mine", "--dry-run", "--task", "it's"]) == 2
    assert "--task" in capsys.readouterr().err


@needs_workspaces
def test_without_a_key_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--project", "mine"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "no API key for https://" in said.err


def test_without_the_package_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    assert main(["--project", "mine"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert re.search(r"needs the package wandb-workspaces.*pip install .*'\.\[dashboard\]'", said.err)


def test_a_dry_run_needs_no_package(tmp_path: Path) -> None:
    """The view of a project with all methods, without wandb or wandb-workspaces."""
    blocked = ("wandb", "wandb_workspaces")
    code = f"import sys; sys.modules |= dict.fromkeys({blocked}); from mmpt.cli.app import main; sys.exit(main())"
    words = ["dashboard", "--project", "mine", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    titles = {panel["title"] for section in json.loads(done.stdout)["sections"] for panel in section["panels"]}
    assert {f"hyperparameters: {method}" for method in method_names()} <= titles
    assert {f"masks: {site}" for site in ("cross", "self", "self_keys", "encoder_values")} <= titles


@needs_workspaces
def test_saved_view_is_the_one_shown(
    server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "found", lambda *_: dashboard.everything())
    saved = save()
    assert capsys.readouterr().out == f"http://127.0.0.1:{server.server_port}/me/mine?nw=abc\n"
    assert (saved["entityName"], saved["projectName"], saved["displayName"]) == ("me", "mine", "mmpt")
    assert main(["--project", "mine", "--dry-run", "--entity", "me"]) == 0
    assert len(Server.saved) == 1  # a dry run sends nothing
    shown = json.loads(capsys.readouterr().out)
    assert (shown["entity"], shown["project"], shown["name"]) == ("me", "mine", "mmpt")
    titles = [panel["title"] for section in shown["sections"] for panel in section["panels"]]
    assert titles == [panel["config"]["chartTitle"] for panel in panels(saved)]
    (curve,) = [p for p in shown["sections"][0]["panels"] if p["type"] == "LinePlot"]
    assert (curve["x"], curve["y"], curve["groupby"]) == (
        "step",
        [names.VALIDATION_SCORE],
        {"type": "Metric", "name": "Group"},
    )


@needs_workspaces
def test_a_refused_key_is_one_line(
    server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "refuses", True)
    assert main(["--project", "mine"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "rejected the dashboard" in said and "unknown key" in said
