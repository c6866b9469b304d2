"""The one trainer: HF's loop, a learning rate a group, label ranking as evaluation, adapters as checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

from mmpt.config.schema import Config
from mmpt.data.collate import IGNORED
from mmpt.errors import AdapterError, ConfigError, RunError, TrainingError
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter import load_state, read_state, save_state
from mmpt.training import names
from mmpt.training.callbacks import Journal
from mmpt.training.evaluate import CachingCollator, Evaluator, Prepared, route_statistics
from mmpt.training.optim import build_optimizer
from mmpt.training.pack import Pass, stacking_seat

WEIGHTS = "method.safetensors"


def training_arguments(config: Config, checkpoints: Path) -> TrainingArguments:
    """HF's arguments for a run: the user's ``trainer.*``, and what the other groups decide.

    Raises:
        ConfigError: HF refuses a value, or the device can't do what is asked.
    """
    chosen = dict(config.trainer)
    if chosen.get("gradient_checkpointing") or chosen.get("activation_checkpointing"):
        raise ConfigError("trainer.gradient_checkpointing isn't supported for frozen backbones; leave it out")
    strategy = chosen.setdefault("eval_strategy", "epoch")
    selects = strategy != "no"
    if selects:
        steps = chosen.get("eval_steps") or chosen.get("logging_steps", 500)  # where transformers evaluates
        chosen |= {"save_strategy": strategy, "save_steps": steps}
    chosen.setdefault("save_total_limit", 2)
    chosen.setdefault("logging_nan_inf_filter", False)  # it would wait for the device in every step; see _watch
    chosen.setdefault("dataloader_pin_memory", False)  # batches are small, and cached ones are on the device already
    by_score = config.evaluation.best_by == "score"
    try:
        return TrainingArguments(
            **chosen,
            output_dir=str(checkpoints),
            seed=config.seed,
            report_to="none",
            learning_rate=max(config.method.lr.values()),
            lr_scheduler_type=config.scheduler.name,
            warmup_steps=config.scheduler.warmup,
            per_device_eval_batch_size=config.evaluation.batch_size,
            load_best_model_at_end=selects,
            metric_for_best_model=("eval_score" if by_score else "eval_loss") if selects else None,
            greater_is_better=by_score if selects else None,
            remove_unused_columns=False,
            disable_tqdm=True,
        )
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"trainer: {str(error).strip().splitlines()[0]}") from error


class PrefixTrainer(Trainer):
    """Trains a method on a frozen backbone."""

    def __init__(
        self,
        model: AdaptedModel,
        config: Config,
        arguments: TrainingArguments,
        evaluator: Evaluator,
        train: Prepared,
        validation: Prepared,
        journal: Journal,
    ) -> None:
        """Join model, data and records.

        Args:
            model: The backbone with its method.
            config: The run's configuration.
            arguments: From :func:`training_arguments`.
            evaluator: Scores the validation split.
            train: The training split.
            validation: The validation split.
            journal: Takes what is logged.
        """
        callbacks: list[Any] = [journal]
        if config.evaluation.patience is not None and arguments.load_best_model_at_end:
            callbacks.append(EarlyStoppingCallback(config.evaluation.patience))
        super().__init__(
            model=model,
            args=arguments,
            data_collator=CachingCollator(evaluator.collate, train.activations),
            train_dataset=train.features,
            eval_dataset=validation.features,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)  # the journal tells what there is to tell
        self.config, self.evaluator, self.validation, self.journal = config, evaluator, validation, journal
        self._place = stacking_seat(config)
        self._first_bad: Tensor | None = None  # on a GPU: the first step whose loss wasn't finite, or 0
        self.model_accepts_loss_kwargs = True  # compute_loss below divides by the tokens of the whole step

    @property
    def adapted(self) -> AdaptedModel:
        """The model without what accelerate put around it."""
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, AdaptedModel)
        return model

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One group of parameters a learning rate."""
        if self.optimizer is None:
            groups = self.adapted.method.parameter_groups()
            self.optimizer = build_optimizer(self.config.optimizer, groups, self.config.method.lr)
        return self.optimizer

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; see :meth:`transformers.Trainer.train`.

        Raises:
            TrainingError: A loss is not a finite number.
        """
        result = super().train(*args, **kwargs)
        if self._first_bad is not None:  # after the last step that was logged
            self._refuse(int(self._first_bad))
        return result

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy, averaged over the target tokens of the whole optimizer step."""
        output = model(**inputs)
        if num_items_in_batch is None:
            loss = output.loss
        else:
            loss = output.losses.sum() / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
            if output.auxiliary is not None:
                loss = loss + output.auxiliary / self.current_gradient_accumulation_steps
        return (loss, output) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One forward and backward pass.

        Raises:
            TrainingError: The loss is not a finite number.
        """
        if self._place is None:
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            loss = self._place.training_pass(self._pass(inputs, num_items_in_batch))
        self._watch(loss)
        return loss

    @property
    def notes_on_device(self) -> bool:
        """Whether the device works ahead of this process, so that no step may wait for it."""
        return self.args.device.type == "cuda"

    def _watch(self, loss: Tensor) -> None:
        """Stop at a loss that isn't finite; on a GPU only note it there, since to look would wait for the device."""
        step = self.state.global_step + 1
        if not self.notes_on_device:
            self._refuse(0 if torch.isfinite(loss) else step, float(loss))
        else:
            none_yet = torch.zeros((), dtype=torch.long, device=loss.device)
            first = none_yet if self._first_bad is None else self._first_bad
            self._first_bad = torch.where((first == 0) & ~torch.isfinite(loss), step, first)

    def _refuse(self, step: int, loss: float = float("nan")) -> None:
        """Raise where a step, counted from 1, had a loss that isn't finite; 0: none had."""
        if step:
            raise TrainingError(
                f"loss is {loss} at step {step}; {self._culprits()}; the last evaluation's checkpoint is kept; "
                "lower method.lr of that group, or set trainer.max_grad_norm"
            )

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Look at what a GPU noted, where there is something to log, evaluate or save: it is waited for then."""
        control = self.control
        if self._first_bad is not None and (control.should_log or control.should_evaluate or control.should_save):
            self._refuse(int(self._first_bad))
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _pass(self, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None) -> Pass:
        """What this trial adds to the pack's next training pass."""
        adapted = self.adapted.train()
        batch = self._prepare_inputs(inputs)
        with self.accelerator.autocast():
            encoded = adapted.start(batch)
        divisor: Tensor | float
        if num_items_in_batch is None:
            divisor = (batch["labels"] != IGNORED).sum() * self.current_gradient_accumulation_steps
        else:
            divisor = num_items_in_batch
        auxiliary = encoded.contribution.auxiliary_loss
        if auxiliary is not None:
            auxiliary = auxiliary / self.current_gradient_accumulation_steps
        return Pass(adapted, encoded, batch["labels"], divisor, self.accelerator.autocast, auxiliary)

    def _culprits(self) -> str:
        """Which groups hold values, or else gradients, that aren't finite."""
        groups = self.adapted.method.parameter_groups()
        broken = [name for name, found in groups.items() if not all(torch.isfinite(p).all() for p in found)]
        if broken:
            return f"parameters that aren't finite are in group {', '.join(broken)}"
        broken = [
            name
            for name, found in groups.items()
            if not all(p.grad is None or torch.isfinite(p.grad).all() for p in found)
        ]
        return f"gradients that aren't finite are in group {', '.join(broken) or '(none)'}"

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the validation split by the first decoding of ``evaluation.decoding``."""
        decoding = self.config.evaluation.decoding[0]
        predictions = self.evaluator.predict(self.adapted, self.validation, decoding)
        scores = self.evaluator.scores(self.validation, predictions, decoding)
        primary = self.evaluator.task.primary
        loss = float("nan") if predictions.loss is None else predictions.loss
        metrics = {"eval_score": float(scores[primary]), "eval_loss": loss}
        found = {names.VALIDATION_LOSS: loss, names.VALIDATION_SCORE: metrics["eval_score"]}
        found |= {names.VALIDATION_METRIC.format(metric=name): x for name, x in scores.items() if isinstance(x, float)}
        step = self.state.global_step
        self.journal.write(step, {**found, **route_statistics(predictions)})
        for site, values in self.adapted.method.mask_values().items():
            self.journal.logger.heatmap(names.MASKS.format(site=site), values.cpu().numpy(), step)
        if self.journal.progress is not None:
            self.journal.progress.update(step, score=metrics["eval_score"])
        if self.journal.on_score is not None:
            self.journal.on_score(step, metrics["eval_score"])
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Any] | None = None) -> None:
        """Write the method's parameters, never the backbone, and no pickled arguments."""
        if self.args.should_save:
            save_state(Path(output_dir or str(self.args.output_dir)), self.adapted.method, WEIGHTS)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, RunError) as error:
            where = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            shutil.rmtree(where, ignore_errors=True)
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            kept = last_checkpoint(where.parent)
            raise RunError(
                f"checkpoint {where} can't be written ({reason}); "
                f"{'no earlier one exists' if kept is None else f'{kept.name} is kept'}; free space there, "
                "and give the same command again to go on"
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / WEIGHTS
        load_state(self.adapted.method, read_state(path), str(path))

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def last_checkpoint(directory: Path) -> Path | None:
    """The newest complete checkpoint; what a killed process left half written is deleted.

    Args:
        directory: The run's checkpoints.

    Returns:
        A checkpoint directory, or None where there is none.
    """
    if not directory.is_dir():
        return None
    found = sorted(directory.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    while found:
        newest = found.pop()
        try:
            json.loads((newest / "trainer_state.json").read_text(encoding="utf-8"))  # written last
            read_state(newest / WEIGHTS)
        except (OSError, ValueError, AdapterError):
            shutil.rmtree(newest)
            continue
        return newest
    return None
