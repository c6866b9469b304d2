"""The one training loop: batches, loss, backward, clip, step, log, evaluate, checkpoint, stop.

Letters: B batch, R processes.
"""

from __future__ import annotations

import contextlib
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from mmpt.config.schema import Config
from mmpt.models.adapted import AdaptedModel
from mmpt.models.parts import word_embeddings
from mmpt.runs import names
from mmpt.training import distributed, signals
from mmpt.training.batches import Batch, Batches
from mmpt.training.checkpoint import (
    State,
    load_parameters,
    random_state,
    restore,
    tensors_of,
    write_checkpoint,
)
from mmpt.training.evaluate import Evaluator, Predictions, Prepared, route_statistics
from mmpt.training.losses import Loss
from mmpt.training.memory import MicroBatches, advise, is_out_of_memory, oom_as_error
from mmpt.training.monitor import Monitor
from mmpt.training.optim import build_optimizer, rate_factor
from mmpt.training.watch import FiniteWatch, check_gradients


class TrainingPass(nn.Module):
    """The forward pass of a batch, in one module, as distributed training and compilation need it."""

    def __init__(self, model: AdaptedModel, loss: Loss, device: torch.device, dtype: torch.dtype | None) -> None:
        """Join model and loss; ``dtype`` is that of mixed precision."""
        super().__init__()
        self.model, self.loss = model, loss
        self.autocast = partial(torch.autocast, device.type, dtype=dtype, enabled=dtype is not None)

    def forward(self, labels: Tensor, **batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Losses (B,) of a batch's examples, float32, and what the method adds to the loss, ()."""
        with self.autocast():
            encoded = self.model.start(batch)
            losses = self.loss(self.model, encoded, labels)
        return losses.float(), encoded.contribution.auxiliary_loss


class Trainer:
    """Trains a method on a frozen backbone."""

    def __init__(
        self,
        config: Config,
        model: AdaptedModel,
        loss: Loss,
        batches: Batches,
        evaluator: Evaluator,
        validation: Prepared,
        monitor: Monitor,
        accelerator: Accelerator,
    ) -> None:
        """Join the parts of a run, with the model on its devices; the monitor receives metrics."""
        self.config, self.settings = config, config.trainer
        self.model, self.method, self.loss, self.batches = model, model.method, loss, batches
        self.evaluator, self.validation, self.monitor, self.accelerator = evaluator, validation, monitor, accelerator
        self.checkpoints: Path = monitor.record.checkpoints_dir
        self.device = word_embeddings(model.backbone).weight.device
        mixed = torch.bfloat16 if self.settings.bf16 else torch.float16 if self.settings.fp16 else None
        one_pass = TrainingPass(model, loss, self.device, mixed)
        if self.settings.torch_compile:
            one_pass.compile()
        self.one_pass = accelerator.prepare_model(one_pass, device_placement=config.model.device_map is None)
        self.optimizer = build_optimizer(config.optimizer, self.method.parameter_groups(), config.method.lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.settings.fp16)
        self.total_steps, self.evaluates = batches.total_steps, self.settings.eval_strategy != "no"
        self.state = State()
        self.loss_sum = torch.zeros((), device=self.device)  # since the last log line
        self.norm: Tensor | None = None
        self.finite = FiniteWatch(self.method, self.device)
        self.predictions: dict[int, Predictions] = {}  # of the validation split, by step: the best and the last
        self.micro_batches: MicroBatches | None = None
        self._set_rates()

    def train(self, checkpoint: Path | None = None) -> None:
        """Train to the end, from a checkpoint where given, and load the best one.

        Raises:
            TrainingError: A loss is not a finite number, or memory has run out.
            Stopped: A signal has come. A checkpoint is written where there was time for it.
        """
        self.model.train()
        if checkpoint is not None:
            self._resume(checkpoint)
        state, settings = self.state, self.settings
        for batches in () if state.over else self.batches.steps(state.step):
            self._optimize(batches)
            if state.step % settings.logging_steps == 0 or (settings.logging_first_step and state.step == 1):
                self._log()
            if distributed.any_rank(signals.requested()):
                self._save(evaluation_due=self._evaluation_is_due)
                raise signals.Stopped(signals.signal_number())
            if self._evaluation_is_due:
                self._evaluate()
            if self._save_is_due:
                self._save()
            if state.over:
                break
        self.finite.check()
        if state.best_step is not None:
            load_parameters(self.checkpoints / f"checkpoint-{state.best_step}", self.method)

    def _optimize(self, batches: list[Batch]) -> None:
        """One optimizer step: the loss is averaged over the examples, or tokens, of all its batches and processes."""
        self.monitor.begin_step()
        weight = distributed.sum_of_ranks(sum(self.loss.weight(batch["labels"]) for batch in batches))
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.one_pass):
                self.loss_sum += self._forward_backward(batch, weight, len(batches))
        check_gradients(self.method, self.state.step + 1)
        self.scaler.unscale_(self.optimizer)
        if self.settings.max_grad_norm > 0:
            self.norm = nn.utils.clip_grad_norm_(self.method.parameters(), self.settings.max_grad_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.state.step += 1
        self.state.rate_step += self.scaler.get_scale() >= scale  # float16 did not overflow
        self._set_rates()
        self.monitor.end_step(self.state.step)

    def _forward_backward(self, batch: Batch, weight: int, passes: int) -> Tensor:
        """This batch's share of the step's loss, ()."""

        def one(rows: Batch) -> Tensor:
            losses, auxiliary = self.one_pass(**rows)
            loss = losses.sum() * (self.accelerator.num_processes / max(weight, 1))  # DDP averages over processes
            if auxiliary is not None:
                loss = loss + auxiliary * (len(rows["labels"]) / (size * passes))
            self.accelerator.backward(self.scaler.scale(loss))
            return loss.detach()

        size = len(batch["labels"])
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        try:
            loss = one(batch) if self.micro_batches is None else self.micro_batches.run(one, batch, self.method)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            retry = "" if self.accelerator.num_processes > 1 else ", or run.retry_oom=true, which does it by itself"
            sizes = (self.settings.per_device_train_batch_size, self.settings.gradient_accumulation_steps)
            raise advise(error, self.state.step + 1, *sizes, retry) from error
        self.finite.note(loss, self.state.step + 1)
        return loss

    def _set_rates(self) -> None:
        schedule = self.config.scheduler
        factor = rate_factor(schedule.name, self.state.rate_step, schedule.warmup, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    @property
    def _epoch(self) -> float:
        return self.state.step / self.batches.steps_per_epoch

    @property
    def _evaluation_is_due(self) -> bool:
        every = self.settings.evaluates_every
        done = self._epoch if every is None else self.state.step
        whole = self.state.step % (every or self.batches.steps_per_epoch) == 0 or self.state.step == self.total_steps
        return self.evaluates and whole and done >= self.settings.eval_delay

    @property
    def _save_is_due(self) -> bool:
        """Besides the checkpoints of evaluations: every save_steps, and at the end."""
        due = self.state.step % self.settings.save_steps == 0 or self.state.step == self.total_steps
        return due and not self._evaluation_is_due

    def _log(self) -> None:
        self.finite.check()
        loss = float(self.accelerator.reduce(self.loss_sum, "mean")) / (self.state.step - self.state.logged)
        norm = None if self.norm is None else float(self.norm)
        self.monitor.log_training(self.state.step, self._epoch, loss, norm, self.optimizer)
        self.loss_sum.zero_()
        self.state.logged = self.state.step

    def _evaluate(self) -> None:
        """Score the validation split by the first decoding of ``evaluation.decoding``, and save a checkpoint.

        Stopped: a signal has come to some process; the checkpoint has this evaluation as due.
        """
        self.finite.check_parameters(self.state.step)
        decoding = self.config.evaluation.decoding[0]
        predictions = None
        with (
            contextlib.suppress(signals.Stopped),
            signals.deferred(False),
            oom_as_error(self.config.evaluation.batch_size),
        ):
            predictions = self.evaluator.predict(self.model, self.validation, decoding)
        if distributed.any_rank(predictions is None) or predictions is None:
            if signals.time_left():
                self._save(evaluation_due=True)
            raise signals.Stopped(signals.signal_number())
        scores = self.evaluator.scores(self.validation, predictions, decoding)
        loss = math.nan if predictions.loss is None else predictions.loss
        score = float(scores[self.evaluator.task.primary])
        values = {names.VALIDATION_LOSS: loss, names.VALIDATION_SCORE: score}
        values |= {names.VALIDATION_METRIC.format(metric=k): v for k, v in scores.items() if isinstance(v, float)}
        values |= route_statistics(predictions, self.validation.examples)
        self.monitor.log_evaluation(self.state.step, values, self.method)
        self._judge(-loss if self.config.evaluation.best_by == "loss" else score, predictions)
        self._save()

    def _judge(self, value: float, predictions: Predictions) -> None:
        """Compare an evaluation with the best so far; higher is better."""
        state = self.state
        if state.best_value is None or math.isnan(state.best_value) or value > state.best_value:
            state.best_step, state.best_value, state.stale = state.step, value, 0
        else:
            state.stale += 1
        self.predictions = {step: known for step, known in self.predictions.items() if step == state.best_step}
        self.predictions[state.step] = predictions
        patience = self.config.evaluation.patience
        state.over = patience is not None and state.stale >= patience

    def _save(self, evaluation_due: bool = False) -> None:
        """Write a checkpoint of all processes' states."""
        self.finite.check_parameters(self.state.step)
        ranks: list[dict[str, Any]] = gather_object([{"loss": float(self.loss_sum), "random": random_state()}])
        state = self.state
        state.losses, state.evaluation_due = [one["loss"] for one in ranks], evaluation_due
        state.metrics_bytes, state.scaler = self.monitor.record.metrics_size(), self.scaler.state_dict()
        tensors = tensors_of(self.method, self.optimizer, [one["random"] for one in ranks])
        limit = self.settings.save_total_limit
        distributed.broadcast(lambda: write_checkpoint(self.checkpoints, state, tensors, limit))

    def _resume(self, checkpoint: Path) -> None:
        """Continue from a checkpoint, with its evaluation first where that was cut short."""
        rank = self.accelerator.process_index
        processes = self.accelerator.num_processes
        self.state = restore(checkpoint, self.method, self.optimizer, self.scaler, rank, processes)
        self.loss_sum.fill_(self.state.losses[rank])
        self._set_rates()
        if self.state.evaluation_due:
            self._evaluate()

    def known_predictions(self) -> Predictions | None:
        """What the best checkpoint predicted of the validation split; None where this process has not computed it."""
        return None if self.state.best_step is None else self.predictions.get(self.state.best_step)
