"""How well a frozen toy network serves downstream: ``python -m tools.toy.probe --model DIR --tasks rte,wic``.

Tunes on the miniature tasks through the command line itself (``train.py``'s entry point), and prints one line a task:
untuned, tuned by each method, and the majority answer, all as the test split's primary metric.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from mmpt.bundled import MODEL_DIR
from mmpt.errors import RunError
from tools.toy import tasks

UNTUNED = ["method=full", "method.lr.backbone=1e-12", "trainer.max_steps=1"]


def score(model: Path, task: str, overrides: list[str]) -> tuple[dict[str, float], float]:
    """Run once and read the record.

    Args:
        model: Folder of the backbone.
        task: A task of :data:`tools.toy.tasks.NAMES`.
        overrides: What to change of the default configuration.

    Returns:
        ``{"test": ..., "majority": ...}`` of the primary metric, and seconds in training.

    Raises:
        RunError: The run didn't finish.
    """
    from mmpt.cli import main as command_line

    with tempfile.TemporaryDirectory() as folder:
        fixed = ["model=local", f"model.path={model}", "data=bundled", "logger=none", f"run.dir={folder}/run"]
        code = command_line([f"task={task}", *fixed, *overrides])
        if code != 0:
            raise RunError(f"probe of {task} on {model} stopped with exit code {code}")
        result = json.loads((Path(folder) / "run" / "result.json").read_text(encoding="utf-8"))
    scores = {split: float(result["scores"][split][result["metric"]]) for split in ("test", "majority")}
    return scores, float(result["timing"]["train_s"])


def main() -> None:
    """Probe from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="folder of the backbone")
    parser.add_argument("--tasks", default="rte,boolq,wic", help=f"comma-separated, of {', '.join(tasks.NAMES)}")
    parser.add_argument("--methods", default="prefix", help="comma-separated names as in conf/method")
    parser.add_argument("overrides", nargs="*", help="further overrides, such as trainer.num_train_epochs=10")
    arguments = parser.parse_args()
    for task in arguments.tasks.split(","):
        untuned, _ = score(arguments.model, task, UNTUNED)
        line = f"{task}: majority {untuned['majority']:.3f}, untuned {untuned['test']:.3f}"
        for method in arguments.methods.split(","):
            tuned, seconds = score(arguments.model, task, [f"method={method}", *arguments.overrides])
            line += f", {method} {tuned['test']:.3f} ({seconds:.0f} s)"
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
