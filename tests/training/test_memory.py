"""What happens where memory runs out: a line that says what fits, or the same losses in pieces."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.cli import main
from mmpt.models.adapted import AdaptedModel
from mmpt.models.kinds.seq2seq import EncoderDecoder
from mmpt.training.memory import is_out_of_memory, smaller
from tests.training.test_run import SMALL, metrics

ROOT = Path(__file__).parents[2]
FIXED = [*SMALL, "trainer.max_steps=4", "trainer.logging_steps=1", "evaluation.bootstrap=0"]
FIXED += ["method.perturb_router=false", "method.router_dropout=0.0"]  # no random number for each example
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    MemoryError(),
]


def limit_rows(monkeypatch: pytest.MonkeyPatch, rows: int, error: BaseException) -> None:
    """Let a forward pass of more rows run out of memory, as a larger one does."""
    losses = EncoderDecoder.losses

    def limited(self: EncoderDecoder, encoded: Any, labels: Any, *args: Any) -> Any:
        if torch.is_grad_enabled() and len(labels) > rows:
            raise error
        return losses(self, encoded, labels, *args)

    monkeypatch.setattr(EncoderDecoder, "losses", limited)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_it_is_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_what_fits_has_the_same_product() -> None:
    assert smaller(32, 1) == (16, 2)
    assert smaller(12, 3) == (6, 6)
    assert smaller(9, 2) == (3, 6)  # 4 isn't a divisor of 18
    assert smaller(7, 1) == (1, 7)
    assert smaller(1, 8) is None


def test_the_line_says_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit_rows(monkeypatch, 10, ERRORS[1])
    assert main([f"run.dir='{tmp_path / 'r'}'", *FIXED]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "out of memory at step 1, with 32 examples at once" in line and "can't allocate memory" in line
    assert "trainer.per_device_train_batch_size=16 trainer.gradient_accumulation_steps=2" in line
    assert json.loads((tmp_path / "r" / "status.json").read_text())["status"] == "failed"


def test_an_evaluation_that_does_not_fit_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rank(self: AdaptedModel, *args: Any) -> Any:
        raise ERRORS[0]

    monkeypatch.setattr(EncoderDecoder, "rank", rank)
    assert main([f"run.dir='{tmp_path / 'r'}'", *FIXED]) == 2
    assert "set evaluation.batch_size=32" in capsys.readouterr().err


def test_a_retry_gives_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*FIXED, "trainer.per_device_train_batch_size=16", "trainer.gradient_accumulation_steps=2"]
    assert main([f"run.dir='{tmp_path / 'whole'}'", *words]) == 0
    limit_rows(monkeypatch, 5, ERRORS[1])  # 16 rows in 4 pieces, with gradients of an earlier batch to keep
    assert main([f"run.dir='{tmp_path / 'pieces'}'", *words, "run.retry_oom=true"]) == 0
    losses = [
        [line["train/loss"] for line in metrics(tmp_path / n) if "train/loss" in line] for n in ("whole", "pieces")
    ]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    warnings = json.loads((tmp_path / "pieces" / "result.json").read_text())["warnings"]
    assert [re.search(r"continuing with (\d+) examples at once, not (\d+)", text)[0] for text in warnings] == [
        "continuing with 8 examples at once, not 16",
        "continuing with 4 examples at once, not 8",
    ]


LIMITED = """
import resource, sys
from mmpt.cli import main
from mmpt.training.loop import Trainer
step = Trainer._forward_backward
def limited(self, *args):
    used = 1024 * next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmSize"))
    if self.state.step == 0:
        resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000, -1))
    return step(self, *args)
Trainer._forward_backward = limited
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("retry", [False, True])
def test_memory_that_really_runs_out(tmp_path: Path, retry: bool) -> None:
    """The first step finds the address space limited: glibc and torch's allocator fail for real."""
    words = [
        f"run.dir='{tmp_path / 'r'}'",
        f"run.retry_oom={str(retry).lower()}",
        "logger=none",
        "data.limit_train=512",
    ]
    words += ["data.limit_validation=8", "data.limit_test=8", "evaluation.bootstrap=0", "trainer.max_steps=2"]
    words += ["trainer.per_device_train_batch_size=512", "cache=off"]
    done = subprocess.run([sys.executable, "-c", LIMITED, *words], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    if retry:
        assert done.returncode == 0, done.stderr
        assert "examples at once, not 512" in done.stdout
    else:
        assert done.returncode == 2
        assert "out of memory at step 1, with 512 examples at once" in done.stderr
        assert "per_device_train_batch_size=256 trainer.gradient_accumulation_steps=2" in done.stderr
