"""Parts of ``python -m benchmarks.gpu``, each a process of its own; the last line that one prints is JSON.

python -m benchmarks.gpu_parts trials --device cuda --shape t5_base --processes 4
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_correct import correct, first_line, on
from benchmarks.graphs import Graphs
from benchmarks.setting import BEST, PEFT, Step, draw, interleave, ours, spread, step_of

AT_ONCE = 5  # steps between two looks at the clock
EAGER, GRAPHED = "ours, bfloat16", "ours, bfloat16, CUDA graphs"
BASE = "peft prefix, float32"
PEERS = {BASE: (PEFT, "float32"), "peft prefix, bfloat16": (PEFT, "bfloat16"), EAGER: (BEST, "bfloat16")}


def wait(device: str) -> None:
    """Until the device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def graphed(shape: str, batch: dict[str, Tensor]) -> tuple[Step, Graphs]:
    """A step of ours with CUDA graphs, captured for this batch."""
    model, gather = ours(BEST, shape, batch, dtype="bfloat16")
    graphs = Graphs(model)
    optimizer = torch.optim.AdamW(graphs.trained, lr=1e-3)

    def step() -> Tensor:
        loss = graphs(gather())
        optimizer.step()
        return loss

    step()
    return step, graphs


def block(step: Step, device: str) -> Callable[[], None]:
    """Some steps, and the wait for the last one: a training loop does not wait for each."""

    def run() -> None:
        for _ in range(AT_ONCE):
            step()
        wait(device)

    return run


def held(device: str) -> float:
    """MB that tensors hold on a GPU."""
    return torch.cuda.memory_allocated() / 1e6 if device == "cuda" else 0.0


def peak(step: Step, device: str) -> float:
    """MB that a step needs besides what is held."""
    if device != "cuda":
        step()
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    before = held(device)
    step()
    wait(device)
    return torch.cuda.max_memory_allocated() / 1e6 - before


def steps(shape: str, lengths: str, device: str, rounds: int) -> list[dict[str, Any]]:
    """One row a way: milliseconds of a step, and MB on the GPU: held by model and cache, and of a step."""
    batch = on(draw(lengths), device)
    ways: dict[str, Step] = {}
    memory: dict[str, tuple[float, float]] = {}
    rows: list[dict[str, Any]] = []
    for way, (kind, dtype) in PEERS.items():
        before = held(device)
        ways[way] = step_of(kind, shape, batch, dtype=dtype)
        memory[way] = held(device) - before, 0.0
        ways[way]()  # the optimizer's state is made here
        memory[way] = memory[way][0], peak(ways[way], device)
    try:
        before = held(device)
        ways[GRAPHED], graphs = graphed(shape, batch)
        memory[GRAPHED] = held(device) - before, graphs.reserved / 1e6
    except (RuntimeError, ValueError) as error:
        rows.append({"shape": shape, "lengths": lengths, "way": GRAPHED, "error": first_line(error)})
    times = interleave({way: block(step, device) for way, step in ways.items()}, rounds, warm=2)
    base = statistics.median(times[BASE])
    for way, values in times.items():
        middle, (model, step) = statistics.median(values), memory[way]
        row = {"shape": shape, "lengths": lengths, "way": way, "ms": middle / AT_ONCE}
        row |= {"quartiles": spread([value / AT_ONCE for value in values], 2), f"{BASE} / this": base / middle}
        rows.append({**row, "MB held": round(model, 1), "MB of a step": round(step, 1)})
    return rows


def say(**what: Any) -> None:
    """Tell the process that waits for this one."""
    print(json.dumps(what), flush=True)


def trial(shape: str, device: str, seconds: float) -> None:
    """Train for some seconds in each of both ways, each time on a sign, together with other trials on the same GPU."""
    batch = on(draw("rte"), device)
    for way in (EAGER, GRAPHED):
        try:
            step = graphed(shape, batch)[0] if way == GRAPHED else step_of(BEST, shape, batch, dtype="bfloat16")
            run = block(step, device)
            run()
        except (RuntimeError, ValueError) as error:
            say(error=first_line(error))
            continue
        say(ready=True)
        if sys.stdin.readline().strip() == "go":
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                run()
                count += AT_ONCE
            took = time.perf_counter() - began
            free, total = torch.cuda.mem_get_info() if device == "cuda" else (0, 0)
            own = torch.cuda.max_memory_reserved() if device == "cuda" else 0
            say(rate=count / took, own=round(own / 1e6), all=round((total - free) / 1e6))
        del step, run
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def trials(processes: int, shape: str, device: str, seconds: float) -> list[dict[str, Any]]:
    """Trials at once, each in a process of its own: steps a second of all together, and memory."""
    words = [sys.executable, "-m", "benchmarks.gpu_parts", "trial", "--shape", shape, "--device", device]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*words, "--seconds", str(seconds)], **pipes) for _ in range(processes)]
    rows = []
    for way in (EAGER, GRAPHED):
        answers = [answer(process) for process in started]
        errors = [found["error"] for found in answers if "error" in found]
        for process, found in zip(started, answers, strict=True):
            if "ready" in found:
                print("skip" if errors else "go", file=process.stdin, flush=True)
        row: dict[str, Any] = {"shape": shape, "way": way, "processes": processes}
        if not errors:
            answers = [answer(process) for process in started]
            errors = [found["error"] for found in answers if "error" in found]
        if errors:
            rows.append({**row, "error": errors[0]})
            continue
        row |= {"steps a second, all": sum(found["rate"] for found in answers)}
        memory = {"MB reserved by one": max(found["own"] for found in answers)}
        rows.append({**row, **memory, "MB of the GPU in use": max(found["all"] for found in answers)})
    for process in started:
        process.communicate()
    return rows


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a trial says next."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return {"error": f"a trial ended with exit code {process.wait()}"}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("correct", "steps", "trials", "trial"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shape", default="t5_base")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    if given.part == "trial":
        trial(given.shape, given.device, given.seconds)
    elif given.part == "correct":
        print(json.dumps(correct(given.device, given.quick)))
    elif given.part == "trials":
        print(json.dumps(trials(given.processes, given.shape, given.device, given.seconds)))
    else:
        rounds = 3 if given.quick else 20
        both = [steps(given.shape, lengths, given.device, rounds) for lengths in ("fixed", "rte")]
        print(json.dumps([*both[0], *both[1]]))


if __name__ == "__main__":
    main()
