"""The W&B dashboard of a project: ``python -m mmpt.dashboard --project NAME [--entity E] [--task T] [--dry-run]``.

It shows what runs log under the names of :mod:`mmpt.runs.names`; docs/logging.md describes its panels.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib.util import find_spec
from typing import Any, get_type_hints

from mmpt.errors import DashboardError
from mmpt.methods import names as method_names
from mmpt.methods import options_class
from mmpt.methods.options import SITES, MethodOptions
from mmpt.cli.program import exit_code
from mmpt.runs import names
from mmpt.runs.loggers.wandb import has_key, reachable, server_url
from mmpt.utils.untrusted import one_line

INSTALL = "python -m pip install -c constraints.txt -e '.[dashboard]'"


def main(argv: list[str] | None = None) -> int:
    """Build the dashboard, or print what would be built.

    Returns:
        The exit code: 0, or 2 after an error told in one line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mmpt.dashboard",
        description="Build the W&B dashboard of a project: a saved view of its workspace. Each call makes a new view.",
    )
    parser.add_argument("--project", required=True, metavar="NAME", help="the project that runs log to: logger.project")
    parser.add_argument("--entity", metavar="E", help="the user or team that owns it; the key's own where left out")
    parser.add_argument("--task", metavar="T", help="only runs of this task, compared by method")
    parser.add_argument("--dry-run", action="store_true", help="print the view as JSON; nothing is sent")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    print(_build(arguments))
    return 0


def _build(arguments: argparse.Namespace) -> str:
    """Save the view and return its address, or with ``--dry-run`` return it as JSON."""
    if find_spec("wandb_workspaces") is None:
        raise DashboardError(f"the dashboard needs the package wandb-workspaces, which isn't installed: {INSTALL}")
    if arguments.task is not None and not re.fullmatch(r"[\w .-]+", arguments.task):
        raise DashboardError(
            f"--task {arguments.task!r} is no name that a filter of W&B can hold; use letters and digits"
        )
    server = server_url()
    if not arguments.dry_run and not has_key():
        raise DashboardError(
            f"no API key for {server}: set WANDB_API_KEY or run `wandb login`; --dry-run shows the view without one"
        )
    if not arguments.dry_run and not reachable(server):
        raise DashboardError(f"{server} can't be reached; --dry-run shows the view without it")
    if arguments.dry_run:
        model = workspace(arguments.project, arguments.entity or "", arguments.task)._to_model()
        return json.dumps(json.loads(model.model_dump_json(by_alias=True, exclude_none=True)), indent=2)
    try:
        import wandb

        entity = arguments.entity or wandb.Api().default_entity
        return str(workspace(arguments.project, entity or "", arguments.task).save().url)
    except Exception as error:  # W&B raises errors of many kinds
        line = one_line(error)[:200]
        raise DashboardError(
            f"{server} did not take the dashboard ({type(error).__name__}: {line}); check the network, the key, "
            f"and that --project {arguments.project} and --entity exist there"
        ) from error


def workspace(project: str, entity: str, task: str | None = None) -> Any:
    """Lay out the dashboard.

    Args:
        project: The project.
        entity: Its owner.
        task: Only runs of this task, averaged by method. None: all, averaged by their group, which keeps tasks apart.

    Returns:
        A ``wandb_workspaces.workspaces.Workspace`` that is not saved.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    key = wr.Metric("Group") if task is None else wr.Config("method.name")
    sections = {
        "Scores": _scores(wr, key),
        "Training": _training(wr, key),
        "Routes": _routes(wr, key),
        "Masks": [
            wr.MediaBrowser(title=f"masks: {site}", media_keys=[names.MASKS.format(site=site)], gallery_axis="step")
            for site in SITES
        ],
        "Hyperparameters": [_coordinates(wr, method, options_class(method)) for method in method_names()],
        "Cost": _costs(wr, key),
    }
    return ws.Workspace(
        name="mmpt" if task is None else f"mmpt: {task}",
        entity=entity,
        project=project,
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=100),
        runset_settings=ws.RunsetSettings(filters="" if task is None else ws.And(ws.Tags().isin([task]))),
        auto_generate_panels=False,
    )


def _curve(wr: Any, title: str, key: Any, **what: Any) -> Any:
    """Mean over seeds, with a standard deviation to either side as a band."""
    band = {"groupby": key, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev", "aggregate": True}
    return wr.LinePlot(title=title, x="step", **band, **what)


def _bars(wr: Any, title: str, key: Any, metric: str) -> Any:
    """Mean over seeds, with a standard deviation to either side."""
    return wr.BarPlot(
        title=title,
        metrics=[metric],
        groupby=key,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        aggregate=True,
    )


def _scores(wr: Any, key: Any) -> list[Any]:
    trade = wr.ScatterPlot(
        title="test score against trainable parameters",
        x=wr.SummaryMetric(names.TRAINABLE),
        y=wr.SummaryMetric(names.TEST_SCORE),
        log_x=True,
    )
    return [
        _bars(wr, "test score", key, names.TEST_SCORE),
        _curve(wr, "validation score", key, y=[names.VALIDATION_SCORE]),
        trade,
    ]


def _training(wr: Any, key: Any) -> list[Any]:
    return [
        _curve(wr, "training loss", key, y=[names.LOSS], log_y=True),
        _curve(wr, "validation loss", key, y=[names.VALIDATION_LOSS], log_y=True),
        _curve(wr, "gradient norm", key, y=[names.GRAD_NORM], log_y=True),
        _curve(wr, "step time, ms", key, y=[names.STEP_MS]),
        _curve(wr, "learning rate by parameter group", key, metric_regex=names.pattern(names.LEARNING_RATE)),
    ]


def _routes(wr: Any, key: Any) -> list[Any]:
    return [
        _curve(wr, "route load: share of examples", key, metric_regex=names.pattern(names.ROUTE_LOAD)),
        _curve(wr, "mean route probability", key, metric_regex=names.pattern(names.ROUTE_MEAN)),
        _curve(wr, "route entropy, nats", key, y=[names.ROUTE_ENTROPY]),
    ]


def _coordinates(wr: Any, method: str, kind: type[MethodOptions]) -> Any:
    """Parallel coordinates of a method: its whole numbers, its learning rates, and the score that tuning looks at."""
    sizes = [name for name, hint in get_type_hints(kind).items() if hint is int]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config("method.name"), display_name="method")]
    columns += [
        wr.ParallelCoordinatesPlotColumn(metric=wr.Config(f"method.{name}"), display_name=name) for name in sizes
    ]
    columns += [
        wr.ParallelCoordinatesPlotColumn(
            metric=wr.Config(f"method.lr.{group}"), display_name=names.LEARNING_RATE.format(group=group), log=True
        )
        for group in kind.GROUPS
    ]
    score = wr.SummaryMetric(names.BEST_VALIDATION_SCORE)
    columns.append(wr.ParallelCoordinatesPlotColumn(metric=score, display_name="validation score"))
    return wr.ParallelCoordinatesPlot(title=f"hyperparameters: {method}", columns=columns)


def _costs(wr: Any, key: Any) -> list[Any]:
    titles = {
        "median step time, ms": names.MEDIAN_STEP_MS,
        "training time, s": names.TRAIN_SECONDS,
        "trainable parameters": names.TRAINABLE,
        "adapter, bytes": names.ADAPTER_BYTES,
        "peak memory, bytes": names.PEAK_BYTES,
    }
    return [_bars(wr, title, key, metric) for title, metric in titles.items()]


if __name__ == "__main__":
    sys.exit(main())
