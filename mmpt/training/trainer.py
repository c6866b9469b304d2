"""The one trainer: HF's loop, a learning rate a group, label ranking as evaluation, adapters as checkpoints."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, TrainingArguments

from mmpt.config.schema import Config
from mmpt.data.collate import CachingCollator
from mmpt.errors import ConfigError, TrainingError
from mmpt.models.adapted import AdaptedModel
from mmpt.runs import names
from mmpt.training import distributed as processes
from mmpt.training import signals as interruption
from mmpt.training.callbacks import Journal
from mmpt.training.evaluate import Evaluator, Predictions, Prepared, route_statistics
from mmpt.training.memory import Pieces, advise, explained, is_out_of_memory
from mmpt.training.optim import build_optimizer
from mmpt.training.resumable import ResumableTrainer


def training_arguments(config: Config, checkpoints: Path) -> TrainingArguments:
    """HF's arguments for a run: the user's ``trainer.*``, and what the other groups decide.

    Raises:
        ConfigError: HF refuses a value, or the device can't do what is asked.
    """
    chosen = dict(config.trainer)
    for name in (
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
    ):  # ours does it
        chosen.pop(name, None)
    strategy = chosen.setdefault("eval_strategy", "epoch")
    selects = strategy != "no"
    if selects:
        steps = chosen.get("eval_steps") or chosen.get("logging_steps", 500)  # where transformers evaluates
        chosen |= {"save_strategy": strategy, "save_steps": steps}
    chosen.setdefault("save_total_limit", 2)
    chosen.setdefault("restore_callback_states_from_checkpoint", True)  # the patience of early stopping
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


class PrefixTrainer(ResumableTrainer):
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
            written=journal.record.metrics_size,
        )
        self.remove_callback(PrinterCallback)  # the journal tells what there is to tell
        self.config, self.evaluator, self.validation, self.journal = config, evaluator, validation, journal
        self._predicted: dict[int, Predictions] = {}  # of the validation split, by step: the best so far and the last
        self._pieces: Pieces | None = None
        self._first_bad: Tensor | None = None  # on a GPU: the first step whose loss wasn't finite, or 0
        self.model_accepts_loss_kwargs = True  # compute_loss below divides by the tokens of the whole step

    @property
    def adapted(self) -> AdaptedModel:
        """The model without what accelerate put around it."""
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, AdaptedModel)
        return model

    @property
    def trained(self) -> nn.Module:
        """The method: the backbone is in no checkpoint."""
        return self.adapted.method

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
            TrainingError: The loss is not a finite number, or memory has run out.
        """
        try:
            if self._pieces is None or num_items_in_batch is None:
                loss = super().training_step(model, inputs, num_items_in_batch)
            else:
                one = functools.partial(super().training_step, model, num_items_in_batch=num_items_in_batch)
                loss = self._pieces.run(one, inputs, self.trained)
        except Exception as error:
            if is_out_of_memory(error):
                raise self._advice(error) from error
            raise
        self._watch(loss)
        return loss

    def allow_pieces(self, tell: Callable[[str], object]) -> None:
        """Go on where memory runs out, with a batch in pieces; several processes can't.

        Args:
            tell: Takes a line each time there are more pieces.
        """
        if self.args.world_size == 1:
            self._pieces = Pieces(tell)

    def _advice(self, error: Exception) -> TrainingError:
        batch, accumulation = self.args.train_batch_size, self.args.gradient_accumulation_steps
        retry = ", or run.retry_oom=true, which does the like by itself"
        if self.args.world_size > 1:
            retry = ""
        return advise(error, self.state.global_step + 1, batch, accumulation, retry)

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
        """Score the validation split by the first decoding of ``evaluation.decoding``.

        Raises:
            interruption.Stopped: A signal has come, to this rank or another one; nothing is written then.
        """
        decoding = self.config.evaluation.decoding[0]
        predictions = None
        size = self.config.evaluation.batch_size
        with contextlib.suppress(interruption.Stopped), interruption.deferred(False), explained(size):
            predictions = self.evaluator.predict(self.adapted, self.validation, decoding)
        if processes.any_of(predictions is None) or predictions is None:
            raise interruption.Stopped(interruption.number())
        scores = self.evaluator.scores(self.validation, predictions, decoding)
        best = self.state.best_global_step
        self._predicted = {step: kept for step, kept in self._predicted.items() if step == best}
        self._predicted[self.state.global_step] = predictions
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

    def known_predictions(self) -> Predictions | None:
        """What the model of the best step said of the validation split; None where this process hasn't asked it."""
        best = self.state.best_global_step if self.args.load_best_model_at_end else None
        return None if best is None else self._predicted.get(best)
