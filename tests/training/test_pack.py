"""Trials in a pack: each gives what it gives alone, and fails alone."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.cli import CONF, main
from mmpt.config.check import check
from mmpt.config.compose import compose
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.training.pack import Pack, Pass, seat, table
from tests.tiny import backbone, batch

SMALL = ["data.limit_train=96", "data.limit_validation=24", "data.limit_test=24", "logger=none", "model=bundled"]
PACK = ["-m", "hydra/launcher=pack", "hydra.launcher.size=3"]


def losses(directory: Path) -> list[float]:
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["train/loss"] for line in map(json.loads, lines) if "train/loss" in line]


def runs(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/status.json"))


def status(directory: Path) -> str:
    return str(json.loads((directory / "status.json").read_text(encoding="utf-8"))["status"])


def test_trials_of_a_pack_give_what_they_give_alone_and_fail_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A low rate: where a unit of a ReLU is zero up to rounding, gradients jump by a hundredth on some machine.
    steps = ["trainer.max_steps=50", "trainer.logging_steps=1", "trainer.eval_strategy=no", "seed=3"]
    steps += [
        "trainer.per_device_train_batch_size=8",
        "cache=ram",
        "method.lr.prefix=0.001",
        "method.num_virtual_tokens=10,5",
    ]
    sweep = [*SMALL, *steps, "method.lr.masks=0.01,1e38"]
    assert main([*PACK, *sweep, f"run.root={tmp_path / 'pack'}"]) == 1
    shown = capsys.readouterr()
    assert "[0] mmpt: rte with multimask" in shown.out and shown.err.count("loss is nan") == 2
    together = runs(tmp_path / "pack")
    assert sorted(map(status, together)) == ["done", "done", "failed", "failed"]
    assert main(["-m", *SMALL, *steps, "method.lr.masks=0.01", f"run.root={tmp_path / 'alone'}"]) == 0
    for directory in runs(tmp_path / "alone"):
        found, wanted = losses(tmp_path / "pack" / directory.name), losses(directory)
        assert len(wanted) == 50 and found == pytest.approx(wanted, abs=1e-4)
        one, two = (
            json.loads((root / directory.name / "result.json").read_text(encoding="utf-8"))["scores"]["test"]
            for root in (tmp_path / "pack", tmp_path / "alone")
        )
        assert one["accuracy"] == pytest.approx(two["accuracy"], abs=1.5 / 24)


def test_what_cannot_be_stacked_runs_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = [
        *SMALL,
        "trainer.max_steps=2",
        "trainer.eval_strategy=no",
        f"run.root={tmp_path}",
        "method=lora,prefix,smop",
    ]
    assert main([*PACK, *sweep]) == 0
    assert [status(directory) for directory in runs(tmp_path)] == ["done"] * 3
    assert "[1]" not in capsys.readouterr().out, "one trial alone needs no label"


def test_methods_that_the_encoder_or_their_own_attention_needs_have_no_table() -> None:
    conf = Path(__file__).parents[2] / "conf"

    def seats(*words: str) -> str | None:
        return table(check(compose(list(words), conf)))

    assert seats("method=prefix") is not None
    alone = (
        "prefix method.gate=true",
        "multimask method.gate=true",
        "apt",
        "mept",
        "ptuning",
        "residual",
        "dept",
        "ia3",
        "lora",
    )
    assert [seats(*f"method={words}".split()) for words in alone] == [None] * len(alone)


def test_a_trial_that_fails_before_its_training_ends_no_other(tmp_path: Path) -> None:
    (tmp_path / "c2").write_text("no folder")
    sweep = [*SMALL, "trainer.max_steps=4", "trainer.eval_strategy=no", f"run.root={tmp_path / 'runs'}", "seed=1,2"]
    assert main([*PACK, *sweep, "cache=disk", f"cache.dir='{tmp_path}/c${{seed}}'"]) == 1
    assert sorted(map(status, runs(tmp_path / "runs"))) == ["done", "failed"]


def test_a_run_twice_in_a_sweep_does_not_meet_its_own_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = [*SMALL, "trainer.max_steps=2", "trainer.eval_strategy=no", f"run.root={tmp_path}", "cache.max_gb=1,2"]
    assert main([*PACK, *sweep]) == 0
    assert len(runs(tmp_path)) == 1 and "done before" in capsys.readouterr().out


def test_what_decides_whether_trials_share_a_pack() -> None:
    def key(*words: str) -> str | None:
        return table(check(compose(["method=multimask", *words], CONF)))

    assert key() is not None and key() == key("seed=2", "method.num_virtual_tokens=3", "method.lr.masks=0.1", "task=cb")
    assert key() != key("method.layers=last_1") and key() != key("++trainer.bf16=true")
    for words in (["method.sites=[encoder]"], ["model.dropout=backbone"], ["method.gate=true"], ["method=lora"]):
        assert key(*words) is None
    paper = ["method.layout=paper", "method.sites=[decoder]"]
    assert key(*paper) == key(*paper, "method.num_routes=3") != key()
    assert key(*paper) != key(*paper, "method.share_type=prepend") and key(*paper) != key(
        *paper, "method.num_virtual_tokens=3"
    )


def test_a_bad_size_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "hydra/launcher=pack", "hydra.launcher.size=0", *SMALL]) == 2
    assert "hydra.launcher.size=0 must be a whole number" in capsys.readouterr().err


def trial(model: AdaptedModel, drawn: list[float], passes: int = 3, fail_at: int | None = None) -> list[float]:
    """Training passes with random numbers of every kind drawn around them."""
    found = []
    for number in range(passes):
        if number == fail_at:
            raise RuntimeError("on purpose")
        drawn += [float(torch.rand(())), float(np.random.rand()), random.random()]
        ids, mask, labels = batch()
        place = seat()
        assert place is not None
        asked = Pass(model, model.encode(ids, mask), labels, 10.0, lambda: torch.autocast("cpu", enabled=False))
        found.append(float(place.training_pass(asked)))
    return found


def works(drawn: list[list[float]], **more: Any) -> dict[str, Any]:
    shared = backbone()
    models = [AdaptedModel.build(shared, parse("prefix", {"num_virtual_tokens": 2})).eval() for _ in drawn]

    def work(number: int) -> list[float]:
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        return trial(models[number], drawn[number], **(more if number == 1 else {}))

    return {f"[{number}] ": lambda number=number: work(number) for number in range(len(drawn))}


def test_random_numbers_are_a_trials_own() -> None:
    alone: list[list[float]] = [[], [], []]
    for number in range(3):
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        for _ in range(3):
            alone[number] += [float(torch.rand(())), float(np.random.rand()), random.random()]
    drawn: list[list[float]] = [[], [], []]
    pack = Pack(works(drawn))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    pack.run()
    assert drawn == alone
    assert torch.equal(torch.get_rng_state(), before), "the pack's own generator was moved"


def test_one_trials_error_ends_no_other() -> None:
    drawn: list[list[float]] = [[], [], []]
    first, second, third = Pack(works(drawn, fail_at=1)).run()
    assert isinstance(second.error, RuntimeError)
    assert first.error is None and third.error is None and len(first.result) == len(third.result) == 3


def test_a_trial_that_exits_ends_no_other() -> None:
    def leave() -> None:
        raise SystemExit(3)

    first, second = Pack({"a": leave, "b": lambda: "done"}).run()
    assert isinstance(first.error, SystemExit) and second.result == "done"


def test_an_interrupt_reaches_every_trial() -> None:
    told = []

    def stop() -> None:
        raise KeyboardInterrupt

    def wait(number: int) -> None:
        place = seat()
        assert place is not None
        try:
            place.pack.hub.switch()
        except KeyboardInterrupt:
            told.append(number)
            raise

    with pytest.raises(KeyboardInterrupt):
        Pack({"a": lambda: wait(0), "b": stop, "c": lambda: wait(2)}).run()
    assert told == [0], "a trial that had not begun has nothing to note"


def test_a_pass_that_fails_ends_its_trials_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr("mmpt.training.pack.stack", broken)
    seats = Pack(works([[], []])).run()
    assert all(isinstance(place.error, MemoryError) for place in seats)
    assert seats[0].error is not seats[1].error, "their traces would grow into each other"


def test_clocks_count_own_turns_and_a_share_of_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def losses(asked: Sequence[Pass]) -> list[torch.Tensor]:
        now[0] += 6.0
        return [torch.zeros(()) for _ in asked]

    def work(seconds: float) -> None:
        place = seat()
        assert place is not None
        for _ in range(2):
            now[0] += seconds
            place.training_pass(asked)

    ids, mask, labels = batch()
    model = AdaptedModel.build(backbone(), parse("prefix", {"num_virtual_tokens": 2}))
    asked = Pass(model, model.encode(ids, mask), labels, 10.0, contextlib.nullcontext)
    monkeypatch.setattr("mmpt.training.pack.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr("mmpt.training.pack._losses", losses)
    seats = Pack({str(seconds): lambda seconds=seconds: work(seconds) for seconds in (1.0, 2.0, 3.0)}).run()
    assert [place.error for place in seats] == [None] * 3
    assert [place.clock() for place in seats] == [2 * (own + 6.0 / 3) for own in (1.0, 2.0, 3.0)]
