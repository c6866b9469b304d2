"""The smallest trainer that writes our checkpoints and goes on from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, TrainingArguments

from mmpt.config.schema import OptimizerConfig
from mmpt.training.optim import build_optimizer
from mmpt.training.resumable import ResumableTrainer

ROWS = [{"x": torch.full((3,), float(number)), "labels": torch.tensor([1.0])} for number in range(8)]


class Line(nn.Module):
    """Linear regression."""

    def __init__(self) -> None:
        """Three weights and a bias."""
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The squared error."""
        return {"loss": (self.layer(x) - labels).square().mean()}


class TinyTrainer(ResumableTrainer):
    """Four steps, an evaluation and a checkpoint at the second and the fourth."""

    def __init__(self, directory: Path, optimizer: Any, written: Callable[[], int] = lambda: 0) -> None:
        """Name the folder of the checkpoints, and the optimizer."""
        arguments = TrainingArguments(
            output_dir=str(directory),
            max_steps=4,
            per_device_train_batch_size=2,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=2,
            save_steps=2,
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            restore_callback_states_from_checkpoint=True,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        torch.manual_seed(1)
        self._name = optimizer
        super().__init__(
            model=Line(),
            args=arguments,
            train_dataset=ROWS,
            eval_dataset=ROWS,
            callbacks=[EarlyStoppingCallback(5)],
            written=written,
        )
        self.remove_callback(PrinterCallback)

    @property
    def trained(self) -> nn.Module:
        """All of it."""
        return self.accelerator.unwrap_model(self.model)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One of ours."""
        groups = {"all": list(self.trained.parameters())}
        self.optimizer = build_optimizer(OptimizerConfig(self._name), groups, {"all": 0.01})
        return self.optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Ever better."""
        metrics = {"eval_loss": 1.0 / self.state.global_step}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
