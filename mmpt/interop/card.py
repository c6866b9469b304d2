"""The model card of a pushed adapter: what it is, what it scored, how to load it. Imports no torch."""

from __future__ import annotations

import functools
import string
from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from mmpt.report.groups import Row
from mmpt.report.run import Run

NO_SCORES = "There is no result for this adapter."


def card(
    repo: str, adapter: Mapping[str, Any], *, run: Run | None = None, row: Row | None = None, license: str | None = None
) -> str:
    """Write README.md: Markdown under a YAML header.

    ``adapter`` is the content of adapter.json as it is pushed; ``row`` has the run with those that differ from it in
    nothing but the seed; ``license`` is an identifier of the hub, None leaves the field to the user.
    """
    method, task, backbone = adapter["method"]["name"], adapter.get("task"), adapter["backbone"]
    purpose = f" for the task `{task['name']}`" if task else ""
    about = [f"# {repo.split('/')[-1]}", f"`{method}` adapter of {_backbone(backbone)}{purpose}."]
    about += ["It holds only what was trained; the backbone is loaded separately and is not changed."]
    parts = [
        *about,
        "## Load it",
        f"```python\nimport mmpt\n{_loaded(repo, adapter)}\n```",
        "## Scores",
        *_scores(run, row),
        "## Backbone",
        _table({**_stated(backbone), "SHA-256 of the weights": f"`{backbone.get('fingerprint')}`"}),
        "## Method",
        f"```yaml\n{yaml.safe_dump(adapter['method'], sort_keys=False, allow_unicode=True).strip()}\n```",
    ]
    if task:
        stated = yaml.safe_dump(_task(adapter), sort_keys=False, allow_unicode=True)
        parts += ["## Task", f"```yaml\n{stated.strip()}\n```"]
    header = _header(repo, adapter, run, license)
    return f"---\n{header}---\n\n" + "\n\n".join(parts) + "\n"


def _header(repo: str, adapter: Mapping[str, Any], run: Run | None, license: str | None) -> str:
    """The fields that the hub reads."""
    backbone, task = adapter["backbone"], adapter.get("task") or {}
    score, results = None if run is None else run.score(), None
    if run is not None and score is not None and not _bundled(run):
        kind: dict[str, Any] = {"task_type": "text-classification" if task["labels"] else "text2text-generation"}
        where: dict[str, Any] = {
            "dataset_type": (task.get("hub") or {}).get("repo", task["name"]),
            "dataset_name": task["name"],
        }
        results = [EvalResult(**kind, **where, metric_type=run.metric, metric_value=round(score, 4))]
    data = ModelCardData(
        license=license,
        library_name="mmpt",
        base_model=backbone["path"] if backbone.get("source") == "hub" else None,
        tags=["mmpt", adapter["method"]["name"], "parameter-efficient-fine-tuning"],
        model_name=repo.split("/")[-1],
        eval_results=results,
    )
    note = "" if license else "# license: left to you; choose an identifier of the hub's list\n"
    return f"{data.to_yaml().strip()}\n{note}"


def _backbone(backbone: Mapping[str, Any]) -> str:
    if backbone.get("source") == "hub":
        return f"[{backbone['path']}](https://huggingface.co/{backbone['path']})"
    return f"the backbone `{backbone.get('name')}`"


def _stated(backbone: Mapping[str, Any]) -> dict[str, str]:
    """Where to get the backbone."""
    source = backbone.get("source")
    if source == "hub":
        revision = backbone.get("revision")
        return {"hub id": f"`{backbone['path']}`", "revision": f"`{revision}`" if revision else "not pinned"}
    if source == "bundled":
        return {"path": "comes with mmpt (a toy)"}
    return {"path": f"a directory, `{backbone.get('path')}`: give yours as `mmpt.load(..., model=DIR)`"}


def _scores(run: Run | None, row: Row | None) -> list[str]:
    """Test scores with their number of examples, interval and baselines; over seeds where several are known."""
    if run is None or run.result is None or run.score() is None:
        return [NO_SCORES]
    interval = run.result.scores.splits["test"].interval
    values = {f"test {run.metric}": f"{run.score():.4f}"}
    if run.result.data.test is not None:
        values["test examples (n)"] = f"{run.result.data.test}"
    if interval is not None:
        values["interval over examples (bootstrap)"] = f"{interval[0]:.4f} to {interval[1]:.4f}"
    levels = {"majority baseline": run.result.baseline("majority"), "chance baseline": run.result.baseline("chance")}
    values |= {name: f"{level:.4f}" for name, level in levels.items() if level is not None}
    summary = None if row is None else row.summary
    if row is not None and summary is not None and summary.n > 1 and summary.sd is not None:
        values["over seeds"] = f"{summary.mean:.4f} ± {summary.sd:.4f} (mean ± sd, {summary.n} seeds)"
    else:
        values["over seeds"] = "not known; this is one run"
    values["seed of this run"] = f"{run.seed}"
    notes = ["The data are the synthetic miniature that comes with mmpt: no benchmark."] if _bundled(run) else []
    return [*notes, _table(values)]


def _bundled(run: Run) -> bool:
    return run.result is not None and bool(run.result.data.bundled)


def _table(values: Mapping[str, str]) -> str:
    cells = {name: value.replace("|", "\\|") for name, value in values.items()}
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {cell} |" for name, cell in cells.items())])


def _loaded(repo: str, adapter: Mapping[str, Any]) -> str:
    """Code that loads the adapter: as a predictor where its task is known, else onto a model."""
    if adapter.get("task"):
        return f'predictor = mmpt.load("{repo}")\nprint(predictor.predict([{_example(adapter)}]))'
    return f'model = mmpt.load_adapter(model, "{repo}")  # the backbone, loaded with transformers'


def _example(adapter: Mapping[str, Any]) -> str:
    """A row for the template, as Python."""
    names = [name for _, name, _, _ in string.Formatter().parse(adapter["task"]["template"]) if name]
    row: dict[str, Any] = {}
    for name in names:
        *path, last = name.split(".")
        functools.reduce(lambda inner, part: inner.setdefault(part, {}), path, row)[last] = "..."
    return repr(row).replace("'", '"')


def _task(adapter: Mapping[str, Any]) -> dict[str, Any]:
    names = ("name", "template", "label_field", "labels", "metric")
    return {name: adapter["task"].get(name) for name in names} | {"max_length": adapter.get("max_length")}
