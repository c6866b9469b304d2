"""trainer.loss: values, gradients, and that each kind of model and each path trains by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mmpt.cli import main
from mmpt.errors import DataError
from mmpt.models.loss import token_losses
from mmpt.training.losses import LabelRanking, create_loss
from tests.training.test_run import SMALL, metrics

FIXED = [*SMALL, "trainer.max_steps=6", "trainer.logging_steps=1", "trainer.eval_strategy=no", "evaluation.bootstrap=0"]
FIXED += ["method.perturb_router=false", "method.router_dropout=0.0"]  # no random number for each example


def losses(directory: Path, *words: str) -> list[float]:
    assert main([f"run.dir='{directory}'", *FIXED, *words]) == 0
    return [line["train/loss"] for line in metrics(directory) if "train/loss" in line]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_losses_are_those_of_torch(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 7, requires_grad=True), torch.tensor([0, 3, -100, 6, 1])
    weights = torch.rand(5)
    found = token_losses(logits, labels, smoothing)
    (gradient,) = torch.autograd.grad((found * weights).sum(), logits)
    expected = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    (other,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, other)


class Model:
    """Likelihoods (B, C) that are given."""

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores

    def likelihoods(self, *_: Any) -> torch.Tensor:
        return self.scores


def test_label_ranking_is_the_softmax_over_label_words() -> None:
    ranking = LabelRanking([[5, 1], [6, 7, 1]])
    labels = torch.tensor([[6, 7, 1], [5, 1, -100]])
    scores = torch.tensor([[-1.0, -3.0], [-2.0, -0.5]], requires_grad=True)
    found = ranking(Model(scores), None, labels)  # type: ignore[arg-type]
    torch.testing.assert_close(found, F.cross_entropy(scores, torch.tensor([1, 0]), reduction="none"))
    assert found.requires_grad and ranking.weight(labels) == 2
    short = ranking(Model(scores[1:]), None, torch.tensor([[5, 1]]))  # type: ignore[arg-type]
    torch.testing.assert_close(short, found[1:])
    with pytest.raises(DataError, match="1 of 2 training targets are no label word"):
        create_loss("label_ranking", 0.0, ranking.candidates, [[5, 1], [6, 7]])


@pytest.mark.parametrize("path", [[], ["cache=off"], ["model.cross_attention=projected"]], ids=" ".join)
@pytest.mark.parametrize("loss", ["label_ranking", "cross_entropy"])
def test_each_loss_falls_and_is_the_same_on_every_path(
    loss: str, path: list[str], tmp_path: Path, backbone_losses: dict[str, list[float]]
) -> None:
    words = [f"trainer.loss={loss}", "trainer.label_smoothing_factor=0.1"]
    found = losses(tmp_path / "r", *words, *path)
    assert found[-1] < found[0]
    assert found == pytest.approx(backbone_losses.setdefault(loss, found), abs=1e-3)
    assert abs(found[0] - losses(tmp_path / "plain", *words[:1], *path)[0]) > 1e-3  # smoothing counts


@pytest.fixture(scope="module")
def backbone_losses() -> dict[str, list[float]]:
    """The first path's losses, by loss."""
    return {}


USER = """
from torch.nn import functional as F

def loss(model, encoded, labels):
    return {factor} * model.losses(encoded, labels)
"""


def test_a_loss_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMPT_EXTENSIONS", str(tmp_path / "own"))
    (tmp_path / "own" / "loss").mkdir(parents=True)
    file = tmp_path / "own" / "loss" / "twice.py"
    file.write_text(USER.format(factor=2), encoding="utf-8")
    found = losses(tmp_path / "r", "trainer.loss=twice")
    assert found[-1] < found[0]
    file.write_text(USER.format(factor=3), encoding="utf-8")
    assert main([f"run.dir='{tmp_path / 'r'}'", *FIXED, "trainer.loss=twice"]) == 2  # a changed file is another run
    error = capsys.readouterr().err
    assert "your own method, metric or loss file" in error and "run.overwrite=true" in error
    (tmp_path / "own" / "loss" / "none.py").write_text("x = 1\n", encoding="utf-8")
    assert main([f"run.dir='{tmp_path / 's'}'", *FIXED, "trainer.loss=none"]) == 2
    assert "has no function loss(model, encoded, labels)" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    (tmp_path / "own" / "loss" / "typo.py").write_text("def loss(m, e, labels):\n    return m.losss(e, labels)\n")
    assert main([f"run.dir='{tmp_path / 'u'}'", *FIXED, "trainer.loss=typo"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "trainer.loss=typo" in line]
    assert "raises AttributeError" in line and "has no attribute 'losss' (typo.py, line 2); correct " in line
    (tmp_path / "own" / "loss" / "mean.py").write_text("def loss(m, e, labels): return m.losses(e, labels).mean()\n")
    assert main([f"run.dir='{tmp_path / 't'}'", *FIXED, "trainer.loss=mean"]) == 2
    assert "must return one number per example" in capsys.readouterr().err
