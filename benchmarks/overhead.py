"""What surrounds the tensor work of a step: ``python -m benchmarks.overhead``.

A whole run of ``train.py`` on a synthetic task of RTE's lengths, random weights of t5-small's shape, with cached
activations: how much of its training loop is spent outside of forward, backward, clipping and the optimizer, that is in
sampling, collating, reading the cache and logging.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.setting import command_line, show, write


def main() -> None:
    """Measure, print, and write ``benchmarks/results/overhead.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--model", default="t5_small_random")
    arguments = parser.parse_args()
    rows = [measure(arguments.model, arguments.steps)]
    show(rows)
    write("overhead", command_line("overhead"), rows)


def measure(model: str, steps: int) -> dict[str, Any]:
    """Median milliseconds from one step to the next, and of the tensor work in it."""
    from mmpt.cli import main as command
    from mmpt.training import loop

    inside: list[float] = []
    starts: list[float] = []

    def timed(original: Callable[..., Any], first: bool = False) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = original(*args, **kwargs)
            spent = time.perf_counter() - began
            if first:
                starts.append(began)
                inside.append(spent)
            else:
                inside[-1] += spent
            return result

        return call

    build = loop.build_optimizer

    def build_optimizer(*args: Any) -> Any:
        optimizer = build(*args)
        optimizer.step = timed(optimizer.step)  # type: ignore[method-assign]
        return optimizer

    loop.Trainer._forward_backward = timed(loop.Trainer._forward_backward, True)  # type: ignore[method-assign]
    loop.nn.utils.clip_grad_norm_ = timed(loop.nn.utils.clip_grad_norm_)
    loop.build_optimizer = build_optimizer  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        overrides = texts.make(folder, train=32 * steps, validation=32)
        settings = [f"model={model}", "logger=none", f"trainer.max_steps={steps}", "cache=ram"]
        settings.append("trainer.eval_strategy=no")
        with Path(os.devnull).open("w", encoding="utf-8") as nothing, redirect_stdout(nothing):
            command([*overrides, *settings, f"run.dir='{folder / 'run'}'"])
    whole = [1000 * (last - first) for first, last in pairwise(starts[1:])]
    tensor = [1000 * spent for spent in inside[1:-1]]
    around = [one - other for one, other in zip(whole, tensor, strict=True)]
    middle = statistics.median(whole)
    share = 100 * statistics.median(around) / middle
    return {"model": model, "ms a step": middle, "ms around": statistics.median(around), "% of a step": share}


if __name__ == "__main__":
    main()
