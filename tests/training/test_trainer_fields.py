"""Each field of trainer.* does what it says, or the run ends with one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmpt.cli import main
from mmpt.config.schema import TrainerConfig
from mmpt.training import distributed
from tests.training.test_run import SMALL, metrics

FIXED = [*SMALL, "trainer.max_steps=6", "trainer.logging_steps=2", "trainer.eval_strategy=no", "evaluation.bootstrap=0"]
FIXED += ["method.perturb_router=false", "method.router_dropout=0.0"]


def run(directory: Path, *words: str) -> list[float]:
    """The losses of a run that must succeed."""
    assert main([f"run.dir='{directory}'", *FIXED, *words]) == 0
    return [line["train/loss"] for line in metrics(directory) if "train/loss" in line]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses without further settings."""
    return run(tmp_path_factory.mktemp("plain") / "r")


SAME = {  # settings that leave the losses as they are, up to rounding, and how far they may differ
    "trainer.dataloader_num_workers=1": 0.0,
    "trainer.full_determinism=true": 0.0,
    "trainer.gradient_checkpointing=true": 1e-5,
    "trainer.save_steps=2": 0.0,
    "trainer.bf16=true": 0.2,
}


@pytest.mark.parametrize("word", SAME)
def test_losses_stay(word: str, plain: list[float], tmp_path: Path) -> None:
    try:
        assert run(tmp_path / "r", word) == pytest.approx(plain, abs=SAME[word] or 1e-12)
    finally:
        torch.use_deterministic_algorithms(False)
    if "bf16" in word:
        assert run(tmp_path / "s") == plain  # and the next run of this process is not touched


@pytest.mark.parametrize(
    "word", ["trainer.group_by_length=true", "trainer.max_grad_norm=0.01", "trainer.per_device_train_batch_size=16"]
)
def test_losses_differ(word: str, plain: list[float], tmp_path: Path) -> None:
    assert run(tmp_path / "r", word) != plain


@pytest.mark.slow
def test_a_compiled_pass_has_the_same_losses(plain: list[float], tmp_path: Path) -> None:
    assert run(tmp_path / "r", "trainer.torch_compile=true") == pytest.approx(plain, abs=1e-4)


def test_the_first_step_is_logged_where_asked(tmp_path: Path) -> None:
    run(tmp_path / "r", "trainer.logging_first_step=true")
    assert [line["step"] for line in metrics(tmp_path / "r") if "train/loss" in line] == [1, 2, 4, 6]


def test_checkpoints_between_evaluations_and_their_limit(tmp_path: Path) -> None:
    run(tmp_path / "r", "trainer.save_steps=1", "trainer.save_total_limit=3")
    names = sorted(path.name for path in (tmp_path / "r" / "checkpoints").iterdir())
    assert names == ["checkpoint-4", "checkpoint-5", "checkpoint-6"]


def test_evaluation_begins_late_where_asked(tmp_path: Path) -> None:
    run(tmp_path / "r", "trainer.eval_strategy=steps", "trainer.eval_steps=2", "trainer.eval_delay=3")
    assert [line["step"] for line in metrics(tmp_path / "r") if "validation/loss" in line] == [4, 6]


def test_a_last_batch_that_is_not_full_is_left_out_where_asked(tmp_path: Path) -> None:
    words = [*SMALL, "data.limit_train=40", "trainer.num_train_epochs=2", "trainer.eval_strategy=no"]
    for name, more, steps in (("all", [], 4), ("full", ["trainer.dataloader_drop_last=true"], 2)):
        assert main([f"run.dir='{tmp_path / name}'", *words, *more]) == 0
        assert json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))["steps"] == steps


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("word", ["trainer.fp16=true", "trainer.tf32=true"])
def test_what_a_cpu_cannot_do_is_one_line(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"run.dir='{tmp_path / 'r'}'", *FIXED, word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{word} needs a GPU" in line and not (tmp_path / "r").exists()


def test_tf32_of_one_trial_is_not_that_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(distributed, "Accelerator", lambda **_: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in switches]
    for setting, wanted in ((True, [True, True]), (None, before), (False, [False, False]), (None, before)):
        distributed.prepare_device(TrainerConfig(tf32=setting))
        assert [each.allow_tf32 for each in switches] == wanted
