"""What mmpt does on one NVIDIA GPU, in at most eight minutes: ``python -m benchmarks.gpu``; the last line is JSON.

``correct``: loss and gradient of every method on every architecture (tiny random networks), and of CUDA graphs, in
float32 on the GPU against the CPU. ``steps``: a training step at the shapes of t5-base and t5-large, peft's prefix
tuning against ours, with and without CUDA graphs, with the memory of each. ``trials``: 1, 2, 4 and 8 trials at once,
each in a process of its own. Every part is a process: a part that fails has ``error``, and the others go on. ``ok``
says whether all parts ran and all numbers agree; the exit code is 0 then, 1 otherwise, and 2 if nothing could start.

``--device cpu --quick`` runs every line except the capture of graphs at tiny shapes; its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {  # module: package
    "torch": "torch",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "peft": "peft",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "huggingface_hub": "huggingface_hub",
    "yaml": "PyYAML",
    "filelock": "filelock",
}


def refusal(device: str, quick: bool) -> str | None:
    """Why nothing can start, in one line; None where it can."""
    if absent := [package for module, package in NEEDED.items() if find_spec(module) is None]:
        return f"packages are missing: {', '.join(absent)}; install them (benchmarks/README.md: without network)"
    if not (ROOT / "tests" / "tiny.py").exists():
        return f"{ROOT} has no tests/tiny.py; run python -m benchmarks.gpu in a checkout of the repository"
    if device == "cpu":
        return None if quick else "--device cpu has no figures of a GPU, and would take hours; add --quick"
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device; --device cpu --quick runs all parts without one"
    return None


def part(words: Sequence[str], seconds: float) -> Any:
    """What a part prints last; ``{"error": ...}`` where it fails or has no time left."""
    print(f"{' '.join(words)} ...", flush=True)
    command = [sys.executable, "-m", "benchmarks.gpu_parts", *words]
    spent = {"error": "no time was left; see --minutes"}
    if seconds <= 0:
        return spent
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return spent
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(done.stderr)
    return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}


def where(device: str) -> dict[str, Any]:
    """The machine, with its GPU and the versions that matter."""
    import peft
    import torch
    import transformers

    from benchmarks.setting import machine

    found = {"device": device, **machine(), "transformers": transformers.__version__, "peft": peft.__version__}
    if device == "cuda":
        about = torch.cuda.get_device_properties(0)
        found |= {"gpu": about.name, "gpu_GB": round(about.total_memory / 1e9, 1), "cuda": torch.version.cuda}
    return found


def ran(found: Any) -> bool:
    """Whether a part, and every row of it, has a result."""
    return all("error" not in row for row in (found if isinstance(found, list) else [found]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run all parts, print tables and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny shapes and few rounds: does everything run?")
    parser.add_argument("--minutes", type=float, default=8.0, help="parts that would end later are left out")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON object goes there too")
    arguments = parser.parse_args(argv)
    if (problem := refusal(arguments.device, arguments.quick)) is not None:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    began, common = time.monotonic(), ["--device", arguments.device, *(["--quick"] if arguments.quick else [])]

    def run(*words: str) -> Any:
        return part([*words, *common], 60 * arguments.minutes - (time.monotonic() - began))

    shapes, many = (("tiny",), (1, 2)) if arguments.quick else (("t5_base", "t5_large"), (1, 2, 4, 8))
    found: dict[str, Any] = {"correct": run("correct"), "steps": {}, "trials": {}}
    for shape in shapes:
        found["steps"][shape] = run("steps", "--shape", shape)
    more = ["--shape", shapes[0], "--seconds", "0.2" if arguments.quick else "6"]
    for count in many:
        found["trials"][str(count)] = run("trials", "--processes", str(count), *more)
    correct = found["correct"]
    agree = ran(correct) and not correct["beyond"] and not correct["failed"]
    found["ok"] = agree and all(ran(rows) for name in ("steps", "trials") for rows in found[name].values())
    found |= {"seconds": round(time.monotonic() - began), "machine": where(arguments.device)}
    tables(found)
    line = json.dumps(found)
    if arguments.out is not None:
        arguments.out.write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0 if found["ok"] else 1


def tables(found: dict[str, Any]) -> None:
    """Print rows of steps and trials as Markdown, and what went wrong as lines."""
    from benchmarks.setting import show

    for name in ("steps", "trials"):
        rows = [row for part in found[name].values() for row in (part if isinstance(part, list) else [part])]
        if good := [row for row in rows if "error" not in row]:
            show(good)
        for row in rows:
            if "error" in row:
                print(f"error: {name} {row}")
    print(f"correct: {found['correct']}")


if __name__ == "__main__":
    sys.exit(main())
