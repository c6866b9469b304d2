"""The W&B dashboard of a project: a saved view of its workspace, with the names of :mod:`mmpt.runs.names`.

docs/logging.md describes its panels; ``python -m mmpt.dashboard`` is the command. A part of the view is a mapping: its
``type`` is a class of wandb-workspaces, the others are that class's arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import islice
from typing import Any, NamedTuple, get_type_hints

from mmpt.errors import DashboardError
from mmpt.methods import names as method_names
from mmpt.methods import options_class
from mmpt.methods.options import SITES
from mmpt.runs import names
from mmpt.runs.loggers.wandb import has_key, reachable, server_url
from mmpt.runs.typed_json import whole
from mmpt.utils.untrusted import one_line

INSTALL = "python -m pip install -c constraints.txt -e '.[dashboard]'"
MOST_RUNS = 1000  # the newest ones of a project are looked at
Part = dict[str, Any]
_BAND: Part = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev", "aggregate": True}  # over seeds
_COSTS = {
    "median step time, ms": names.MEDIAN_STEP_MS,
    "training time, s": names.TRAIN_SECONDS,
    "trainable parameters": names.TRAINABLE,
    "adapter, bytes": names.ADAPTER_BYTES,
    "peak memory, bytes": names.PEAK_BYTES,
}


class Ran(NamedTuple):
    """What runs of a project log."""

    methods: Mapping[str, Mapping[str, bool]]  # -> options such as ``lr.prefix``, and whether as a logarithm
    masks: list[str]  # names of heat maps


def build(project: str, entity: str | None, task: str | None, dry_run: bool) -> str:
    """Save the view and return its address, or with ``dry_run`` return it as JSON and send nothing.

    It is of a project's runs of one task, averaged by method, or of all, averaged by their group, which separates
    tasks. ``entity`` is its owner, None: the key's own. With ``dry_run`` it is that of a project with all methods, and
    no package, key or network is needed. DashboardError: a package or a key is missing, or W&B cannot be reached or
    rejects the view.
    """
    if task is not None and not re.fullmatch(r"[\w .-]+", task):
        raise DashboardError(f"--task {task!r} cannot be used in a filter of W&B; use letters and digits")
    if dry_run:
        return json.dumps(view(project, entity or "", task, everything()), indent=2)
    if find_spec("wandb_workspaces") is None:
        raise DashboardError(f"the dashboard needs the package wandb-workspaces, which is not installed: {INSTALL}")
    server = server_url()
    if not has_key():
        raise DashboardError(
            f"no API key for {server}: set WANDB_API_KEY or run `wandb login`; --dry-run shows the view without one"
        )
    if not reachable(server):
        raise DashboardError(f"{server} cannot be reached; --dry-run shows the view without it")
    try:
        import wandb

        api = wandb.Api()
        owner = entity or api.default_entity or ""
        return str(_made(view(project, owner, task, found(api, f"{owner}/{project}", task))).save().url)
    except Exception as error:  # W&B raises errors of many kinds
        line = one_line(error)[:200]
        raise DashboardError(
            f"{server} rejected the dashboard ({type(error).__name__}: {line}); check the network, the key, "
            f"and that --project {project} and --entity exist there"
        ) from error


def everything() -> Ran:
    """All methods of the package, and all names that their masks can have."""
    methods = {}
    for name in method_names():
        options = options_class(name)
        sizes = [key for key, hint in get_type_hints(options).items() if hint is int]
        methods[name] = dict.fromkeys(sizes, False) | {f"lr.{group}": True for group in options.GROUPS}
    sites = [f"{site}{kind}" for site in (*SITES, "self") for kind in ("", "_keys", "_values")]
    return Ran(methods, [names.MASKS.format(site=site) for site in sites])


def found(api: Any, path: str, task: str | None) -> Ran:
    """Ask a ``wandb.Api`` what the runs of ENTITY/PROJECT, or of one task there, log; own methods are among them."""
    methods: dict[str, dict[str, bool]] = {}
    masks: dict[str, None] = {}
    filters = {} if task is None else {"tags": {"$in": [task]}}
    for run in islice(api.runs(path, filters, order="-created_at", per_page=200, lazy=False), MOST_RUNS):
        logged = list(run.summary.keys())
        masks |= {name: None for name in logged if re.fullmatch(names.pattern(names.MASKS), name)}
        method = run.config.get("method")
        if isinstance(method, Mapping) and "name" in method:
            rates = method.get("lr")
            sizes = [name for name, value in method.items() if whole(value) is not None]
            options = methods.setdefault(str(method["name"]), {})
            options |= dict.fromkeys(sizes, False) | {f"lr.{name}": True for name in rates or {}}
    return Ran(dict(sorted(methods.items())), sorted(masks))


def view(project: str, entity: str, task: str | None, ran: Ran) -> Part:
    """Lay out the dashboard; see :func:`build`."""
    key = _part("Metric", name="Group") if task is None else _part("Config", name="method.name")
    sections = {name: panels for name, panels in _sections(key, ran).items() if panels}
    return _part(
        "Workspace",
        name="mmpt" if task is None else f"mmpt: {task}",
        entity=entity,
        project=project,
        sections=[_part("Section", name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=_part("WorkspaceSettings", x_axis="step", max_runs=100),
        runset_settings=_part("RunsetSettings", filters="" if task is None else f"Metric('Tags') in ['{task}']"),
        auto_generate_panels=False,
    )


def _part(kind: str, **arguments: Any) -> Part:
    return {"type": kind, **arguments}


def _made(value: Any) -> Any:
    """Make objects of wandb-workspaces from parts."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    if isinstance(value, list):
        return [_made(one) for one in value]
    if not isinstance(value, dict):
        return value
    arguments = {name: _made(one) for name, one in value.items() if name != "type"}
    kind = value["type"]
    return getattr(wr if hasattr(wr, kind) else ws, kind)(**arguments)


def _sections(key: Part, ran: Ran) -> dict[str, list[Part]]:
    """The panels by section, with runs averaged by ``key``."""

    def curve(title: str, **what: Any) -> Part:
        return _part("LinePlot", title=title, x="step", groupby=key, **_BAND, **what)

    def bars(title: str, metric: str) -> Part:
        return _part("BarPlot", title=title, metrics=[metric], groupby=key, **_BAND)

    x, y = (_part("SummaryMetric", name=name) for name in (names.TRAINABLE, names.TEST_SCORE))
    return {
        "Scores": [
            bars("test score", names.TEST_SCORE),
            curve("validation score", y=[names.VALIDATION_SCORE]),
            _part("ScatterPlot", title="test score against trainable parameters", x=x, y=y, log_x=True),
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
            _part("MediaBrowser", title=name.replace("/", ": ", 1), media_keys=[name], gallery_axis="step")
            for name in ran.masks
        ],
        "Hyperparameters": [_coordinates(method, options) for method, options in ran.methods.items()],
        "Cost": [bars(title, metric) for title, metric in _COSTS.items()],
    }


def _coordinates(method: str, options: Mapping[str, bool]) -> Part:
    """Parallel coordinates of a method: its whole numbers, its learning rates, and the score that tuning looks at."""

    def column(title: str, metric: Part, log: bool = False) -> Part:
        return _part("ParallelCoordinatesPlotColumn", metric=metric, display_name=title, log=log)

    shown = {"name": False, **options}.items()
    columns = [column(name.replace(".", "/"), _part("Config", name=f"method.{name}"), log) for name, log in shown]
    columns.append(column("validation score", _part("SummaryMetric", name=names.BEST_VALIDATION_SCORE)))
    return _part("ParallelCoordinatesPlot", title=f"hyperparameters: {method}", columns=columns)
