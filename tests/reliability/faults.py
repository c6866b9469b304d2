"""Runs in forked children of this process, and the moments at which they are killed or sent a signal.

A child costs no import, and a moment is a count of events, not of seconds: the same seed hits the same place on any
machine.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

TIMES = ("time", "train/step_ms")
SERVER = multiprocessing.get_context("forkserver")  # not forked from here: other tests may have started threads
SERVER.set_forkserver_preload(["torch", "mmpt.training.run", "mmpt.cli"])


@dataclass
class Bomb:
    """What befalls a child at the n-th event (from 0) of a kind. The kind ``none`` only counts."""

    kind: str = "none"
    number: int = 0
    signal: int = signal.SIGKILL
    rank: int = 0  # -1: each
    error: int = 0  # in place of the signal: from then on each event of the kind fails with this error of the system
    seconds: float = 0.0  # each event takes so much longer, from that one on
    file_size: int = 0  # bytes that no file may exceed
    seen: Counter[str] = field(default_factory=Counter)

    def event(self, kind: str) -> None:
        self.seen[kind] += 1
        if kind == self.kind and self.error and self.seen[kind] > self.number:
            raise OSError(self.error, os.strerror(self.error))
        if kind == self.kind and not self.error and self.seen[kind] == self.number + 1:
            print(f"signal at {time.monotonic():.3f}", flush=True)
            os.kill(os.getpid(), self.signal)
        if self.kind == "none" or (kind == self.kind and self.seen[kind] > self.number):
            time.sleep(self.seconds)


def kind_of(path: str) -> str:
    """Which kind of file a path is."""
    if "checkpoint" in path:
        return "checkpoint"
    if "/wandb" in path:
        return "wandb"
    return "cache" if "/cache/" in path else "file"


def watch(bomb: Bomb, root: Path) -> None:
    """Tell a bomb of every step, batch of an evaluation or of the encoder pass, and change of a file below a folder."""
    from mmpt.cache.entry import Draft
    from mmpt.runs.loggers.wandb import WandbLogger
    from mmpt.training.evaluate import Evaluator
    from mmpt.training.loop import Trainer

    if bomb.file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bomb.file_size, bomb.file_size))
    event, step, put, log = bomb.event, Trainer._forward_backward, Draft.put, WandbLogger.log
    start, batches = Evaluator.predict, Evaluator.batches

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        event("step")
        result = step(self, *args, **kwargs)
        event("step")
        return result

    def predict(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.predicts = True
        try:
            return start(self, *args, **kwargs)
        finally:
            self.predicts = False

    def cut(self: Any, *args: Any, **kwargs: Any) -> Any:
        for batch in batches(self, *args, **kwargs):
            event("evaluation" if getattr(self, "predicts", False) else "encoder")
            yield batch

    def written(self: Any, *args: Any) -> None:
        event("cache")
        put(self, *args)

    Trainer._forward_backward, Evaluator.predict = training_step, predict  # type: ignore[method-assign]
    Evaluator.batches, Draft.put = cut, written  # type: ignore[method-assign]

    def logged(self: Any, *args: Any) -> None:
        event("wandb")
        log(self, *args)
        event("wandb")

    WandbLogger.log = logged  # type: ignore[method-assign]

    def audit(name: str, args: tuple[Any, ...]) -> None:
        if name == "open" and isinstance(args[0], str | Path):
            mode, flags = args[1], args[2]
            writes = any(letter in mode for letter in "wa+x") if mode else flags & (os.O_WRONLY | os.O_RDWR)
            if not writes:
                return
        elif name not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            return
        path = str(args[0])
        if path.startswith(str(root)) or name in ("os.remove", "os.rmdir"):
            event(kind_of(path))

    sys.addaudithook(audit)


def command(root: Path, words: list[str], bomb: Bomb | None = None, ranks: int = 1) -> list[int]:
    """Run a command line in one child a rank, from begin to end; what it prints is added to ``root/output.txt``.

    Where one rank is killed, the others are too, as torchrun and clusters do.

    Returns:
        Each rank's exit code, or minus the signal that ended it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(ranks):
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank}
        environment = {name: str(value) for name, value in world.items()} if ranks > 1 else {}
        mine = bomb if bomb is not None and bomb.rank in (rank, -1) else None
        child = SERVER.Process(target=_child, args=(root, words, mine, {**os.environ, **environment}))
        child.start()
        children.append(child)
    while living := [child.sentinel for child in children if child.is_alive()]:
        connection.wait(living)
        if any(child.exitcode == -signal.SIGKILL for child in children):
            for child in children:
                child.kill()
    return [child.exitcode or 0 for child in children]


def _child(root: Path, words: list[str], bomb: Bomb | None, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 99
    with (root / "output.txt").open("a", buffering=1) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = output
        try:
            import torch

            from mmpt.cli import main

            torch.set_num_threads(1)
            if bomb is not None:
                watch(bomb, root)
            code = main(words)
            if bomb is not None and bomb.kind == "none":
                (root / "events.json").write_text(json.dumps(bomb.seen), encoding="utf-8")
        except BaseException:
            traceback.print_exc()
    os._exit(code)


def figures(directory: Path) -> dict[str, Any]:
    """All that a run leaves and that must be the same again: everything but times and memory."""
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "metrics": [{key: value for key, value in line.items() if key not in TIMES} for line in lines],
        "result": {key: value for key, value in result.items() if key not in ("timing", "memory")},
        **{
            name: (directory / name).read_bytes()
            for name in ("adapter/adapter.safetensors", "predictions.jsonl", "predictions_validation.jsonl")
        },
    }
