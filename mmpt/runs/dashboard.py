"""The W&B dashboard of a project: a saved view of its workspace, with the names of :mod:`mmpt.runs.names`.

docs/logging.md describes its panels; ``python -m mmpt.dashboard`` is the command.
"""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.util import find_spec
from typing import Any, get_type_hints

from mmpt.errors import DashboardError
from mmpt.methods import names as method_names
from mmpt.methods import options_class
from mmpt.methods.options import SITES
from mmpt.runs import names
from mmpt.runs.loggers.wandb import has_key, reachable, server_url
from mmpt.utils.untrusted import one_line

INSTALL = "python -m pip install -c constraints.txt -e '.[dashboard]'"
_BAND: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev", "aggregate": True}  # over seeds
_COSTS = {
    "median step time, ms": names.MEDIAN_STEP_MS,
    "training time, s": names.TRAIN_SECONDS,
    "trainable parameters": names.TRAINABLE,
    "adapter, bytes": names.ADAPTER_BYTES,
    "peak memory, bytes": names.PEAK_BYTES,
}


def build(project: str, entity: str | None, task: str | None, dry_run: bool) -> str:
    """Save the view and return its address, or with ``dry_run`` return it as JSON and send nothing.

    It is of a project's runs of one task, averaged by method, or of all, averaged by their group, which separates
    tasks. ``entity`` is its owner, None: the key's own. DashboardError: a package or a key is missing, or W&B cannot
    be reached or rejects the view.
    """
    if find_spec("wandb_workspaces") is None:
        raise DashboardError(f"the dashboard needs the package wandb-workspaces, which is not installed: {INSTALL}")
    if task is not None and not re.fullmatch(r"[\w .-]+", task):
        raise DashboardError(f"--task {task!r} cannot be used in a filter of W&B; use letters and digits")
    if dry_run:
        return json.dumps(workspace(project, entity or "", task), default=_public_fields, indent=2)
    server = server_url()
    if not has_key():
        raise DashboardError(
            f"no API key for {server}: set WANDB_API_KEY or run `wandb login`; --dry-run shows the view without one"
        )
    if not reachable(server):
        raise DashboardError(f"{server} cannot be reached; --dry-run shows the view without it")
    try:
        import wandb

        return str(workspace(project, entity or wandb.Api().default_entity or "", task).save().url)
    except Exception as error:  # W&B raises errors of many kinds
        line = one_line(error)[:200]
        raise DashboardError(
            f"{server} rejected the dashboard ({type(error).__name__}: {line}); check the network, the key, "
            f"and that --project {project} and --entity exist there"
        ) from error


def _public_fields(value: Any) -> dict[str, Any]:
    """An object of wandb-workspaces as plain values: the name of its class, and its public fields that are set."""
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    shown = {name: one for name, one in fields.items() if one is not None and not name.startswith("_")}
    return {"type": type(value).__name__, **shown}


def workspace(project: str, entity: str, task: str | None = None) -> Any:
    """Lay out the dashboard as a ``wandb_workspaces.workspaces.Workspace`` that is not saved; see :func:`build`."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    sections = _sections(wr, wr.Metric("Group") if task is None else wr.Config("method.name"))
    return ws.Workspace(
        name="mmpt" if task is None else f"mmpt: {task}",
        entity=entity,
        project=project,
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=100),
        runset_settings=ws.RunsetSettings(filters="" if task is None else ws.And(ws.Tags().isin([task]))),
        auto_generate_panels=False,
    )


def _sections(wr: Any, key: Any) -> dict[str, list[Any]]:
    """The panels by section, with runs averaged by ``key``."""

    def curve(title: str, **what: Any) -> Any:
        return wr.LinePlot(title=title, x="step", groupby=key, **_BAND, **what)

    def bars(title: str, metric: str) -> Any:
        return wr.BarPlot(title=title, metrics=[metric], groupby=key, **_BAND)

    parameters, score = wr.SummaryMetric(names.TRAINABLE), wr.SummaryMetric(names.TEST_SCORE)
    trade_off = wr.ScatterPlot(title="test score against trainable parameters", x=parameters, y=score, log_x=True)
    masks = {f"masks: {site}": names.MASKS.format(site=site) for site in SITES}
    return {
        "Scores": [
            bars("test score", names.TEST_SCORE),
            curve("validation score", y=[names.VALIDATION_SCORE]),
            trade_off,
        ],
        "Training": [
            curve("training loss", y=[names.LOSS], log_y=True),
            curve("validation loss", y=[names.VALIDATION_LOSS], log_y=True),
            curve("gradient norm", y=[names.GRAD_NORM], log_y=True),
            curve("step time, ms", y=[names.STEP_MS]),
            curve("learning rate by parameter group", metric_regex=names.pattern(names.LEARNING_RATE)),
        ],
        "Routes": [
            curve("route load: share of examples", metric_regex=names.pattern(names.ROUTE_LOAD)),
            curve("mean route probability", metric_regex=names.pattern(names.ROUTE_MEAN)),
            curve("route entropy, nats", y=[names.ROUTE_ENTROPY]),
        ],
        "Masks": [
            wr.MediaBrowser(title=title, media_keys=[name], gallery_axis="step") for title, name in masks.items()
        ],
        "Hyperparameters": [_coordinates(wr, method) for method in method_names()],
        "Cost": [bars(title, metric) for title, metric in _COSTS.items()],
    }


def _coordinates(wr: Any, method: str) -> Any:
    """Parallel coordinates of a method: its whole numbers, its learning rates, and the score that tuning looks at."""
    options = options_class(method)
    sizes = [name for name, hint in get_type_hints(options).items() if hint is int]
    columns = [("method", wr.Config("method.name"), False)]
    columns += [(name, wr.Config(f"method.{name}"), False) for name in sizes]
    rates = [(names.LEARNING_RATE.format(group=group), f"method.lr.{group}") for group in options.GROUPS]
    columns += [(title, wr.Config(name), True) for title, name in rates]
    columns.append(("validation score", wr.SummaryMetric(names.BEST_VALIDATION_SCORE), False))
    made = [wr.ParallelCoordinatesPlotColumn(metric=m, display_name=title, log=log) for title, m, log in columns]
    return wr.ParallelCoordinatesPlot(title=f"hyperparameters: {method}", columns=made)
