"""``mmpt models size``: what a model takes in memory. Imports torch only once the settings are right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpt.cli.program import new_command, print_table
from mmpt.cli.train import config_of
from mmpt.config.compose import CONF, group_options
from mmpt.config.schema import Config
from mmpt.errors import ConfigError, nearest
from mmpt.utils.text import size_text

if TYPE_CHECKING:
    from mmpt.models.footprint import Footprint

CARDS = (16, 24, 48, 80)  # 10⁹ bytes of memory of usual GPUs
FREE = 0.1  # share that the driver, the allocator and the matrix library's buffers may take

command = new_command("Learn about the frozen networks.")


@command.callback()
def models() -> None:
    """Learn about the frozen networks."""


@command.command()
def size(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of conf/model, a folder, a GGUF file, or OWNER/NAME.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[SETTING]...", help="As of train, such as method.layers=last_6.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", help="By default trainer.per_device_train_batch_size.")
    ] = None,
    source: Annotated[int | None, typer.Option(metavar="TOKENS", help="By default data.max_length.")] = None,
    label: Annotated[int | None, typer.Option(metavar="TOKENS", help="By default evaluation.max_new_tokens.")] = None,
) -> None:
    """Compute the memory that a model and a training step take, without its weights."""
    words = [f"trainer.per_device_train_batch_size={batch}"] if batch is not None else []
    words += [f"data.max_length={source}"] if source is not None else []
    words += [f"evaluation.max_new_tokens={label}"] if label is not None else []
    config = config_of([*_model_words(name), *(settings or []), *words])
    from transformers.utils import logging

    from mmpt.models.footprint import footprint

    logging.set_verbosity_error()
    sizes = {
        "batch": config.trainer.per_device_train_batch_size,
        "source": config.data.max_length,
        "label": config.evaluation.max_new_tokens,
    }
    found = footprint(config.model, config.method.options, **sizes, evaluation=config.evaluation.batch_size)
    _print(config, found)


def _model_words(name: str) -> list[str]:
    if name in (known := group_options([CONF])["model"]):
        return [f"model={name}"]
    if "/" not in name and not Path(name).expanduser().exists():
        raise ConfigError(
            f"no model {name!r}; give a folder, a GGUF file, or one of {', '.join(known)}{nearest(name, known)}"
        )
    return ["model=local", f"model.path='{name}'"]


def _print(config: Config, found: Footprint) -> None:
    model, kinds = config.model, list(found.weights)
    origin = "a shape that mmpt knows" if found.known else model.source
    where = "" if model.path is None else f" ({model.path}, {origin})"
    print(f"{model.name}{where}: {found.parameters:,} parameters, {found.trained:,} of method={config.method.name}")
    sizes = f"{config.trainer.per_device_train_batch_size} texts of {config.data.max_length} tokens"
    print(f"a training step of {sizes}, labels of {config.evaluation.max_new_tokens} tokens\n")
    rows = [["", *kinds], ["weights", *(size_text(found.weights[kind]) for kind in kinds)]]
    ways = ((False, "not cached"), (True, "cached"))
    for cached, name in ways:
        rows.append([f"training step, {name}", *(_text(found.step(kind, cached=cached)) for kind in kinds)])
    evaluation = (size_text(found.of(kind).evaluation) for kind in kinds)
    rows.append([f"evaluation of {config.evaluation.batch_size} texts", *evaluation])
    for cached, name in ways:
        totals = [found.total(kind, cached=cached) for kind in kinds]
        rows.append([f"in all, {name}", *map(_text, totals)])
        rows.append([f"smallest card, {name}", *map(_card, totals)])
    caches = [found.of(kind).cache for kind in kinds]
    rows.append(["cache of 1,000 texts", *(_text(None if size is None else 1000 * size) for size in caches)])
    print_table(rows)
    if found.uncached is not None:
        print(f"\nnothing is cached: {found.uncached}")


def _text(count: int | None) -> str:
    return "-" if count is None else size_text(count)


def _card(total: int | None) -> str:
    """The smallest card that holds so many bytes."""
    fits = [card for card in CARDS if total is not None and total <= (1 - FREE) * card * 10**9]
    return f"{fits[0]} GB" if fits else "-" if total is None else "none"
