"""A trainer that can be stopped at any moment: checkpoints are whole, and training goes on from one to the same bits.

transformers' trainer restores parameters, optimizer, schedule, random generators and the place in the data. What it
leaves out is done here: the loss summed since the last log line, the patience of early stopping, an end that was
reached already, an evaluation that was due.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from mmpt.errors import AdapterError, RunError
from mmpt.models.adapter_files import load_state, read_state, save_state
from mmpt.training import distributed as processes
from mmpt.training import signals as interruption
from mmpt.training.restored import (
    PROGRESS,
    STATE,
    check_optimizer,
    check_scheduler,
    check_state,
    read_progress,
    read_tensors,
    step_of,
)
from mmpt.utils.files import read_json, write_json, writing
from mmpt.utils.untrusted import one_line

WEIGHTS = "method.safetensors"


class ResumableTrainer(Trainer):
    """Writes checkpoints of a module's trained parameters, goes on from them, and stops when a signal asks for it."""

    def __init__(self, *args: Any, written: Callable[[], int], **kwargs: Any) -> None:
        """Take transformers' arguments.

        Args:
            *args: As they are.
            written: Bytes of metrics.jsonl so far.
            **kwargs: As they are.
        """
        super().__init__(*args, **kwargs)
        self._written = written
        self._stopping = self._over = False
        self._source: str | None = None  # the checkpoint that training went on from
        self.add_callback(_Stops(self))

    @property
    def trained(self) -> nn.Module:
        """The module whose parameters are trained, and make a checkpoint."""
        raise NotImplementedError

    def stop(self, control: TrainerControl) -> None:
        """Write a checkpoint at the next chance, then end."""
        self._stopping = control.should_save = True

    def take_up(self, control: TrainerControl) -> None:
        """At the begin of training: an end stays an end, and an evaluation that was due comes first."""
        control.should_training_stop = self._over
        if control.should_evaluate:
            self._load_rng_state(self._source)
            self._maybe_log_save_evaluate(
                self._tr_loss, None, self.model_wrapped, None, self.state.epoch or 0.0, None, time.time()
            )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Log, evaluate and save where due; stop where asked.

        Raises:
            interruption.Stopped: A signal asked for it, and the checkpoint is written.
        """
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except interruption.Stopped:  # in an evaluation, which is due again when training goes on
            if interruption.patient():
                self.control.should_evaluate = self.control.should_save = True
                self._save_checkpoint(self.trained, None)
            raise
        if self._stopping:
            raise interruption.Stopped(interruption.number())

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint under another name, and give it its own once all ranks' files are there."""
        target = self._checkpoint(self.state.global_step)
        draft = target.with_name(f".{target.name}.tmp")
        try:
            if self.args.should_save:
                save_state(draft, self.trained, WEIGHTS)
            self.store_flos()
            self._save_optimizer_and_scheduler(str(draft))
            self._save_scaler(str(draft))
            self._save_rng_state(str(draft))
            best = self.state.best_global_step
            if best and (best == self.state.global_step or self._checkpoint(best).is_dir()):
                self.state.best_model_checkpoint = str(self._checkpoint(best))
            if self.args.should_save:
                self._save_state(draft)
                _replace(draft, target)
                if self.args.push_to_hub:
                    self._push_from_checkpoint(str(target))
                limit, protected = self.args.save_total_limit, self.state.best_model_checkpoint
                rotate_checkpoints(str(target.parent), limit, protected, use_mtime=True)
            processes.meet()  # who ends training reads the best checkpoint next
        except (OSError, RuntimeError, RunError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            kept = last_checkpoint(target.parent)
            raise RunError(
                f"checkpoint {target} can't be written ({reason}); "
                f"{'no earlier one exists' if kept is None else f'{kept.name} is kept'}; free space there, "
                "and give the same command again to go on"
            ) from error

    def _checkpoint(self, step: int) -> Path:
        return Path(str(self.args.output_dir)) / f"checkpoint-{step}"

    def _save_state(self, draft: Path) -> None:
        stateful = [one for one in (*self.callback_handler.callbacks, self.control) if isinstance(one, ExportableState)]
        self.state.stateful_callbacks = {type(one).__name__: one.state() for one in stateful}  # type: ignore[assignment]
        self.state.save_to_json(str(draft / STATE))

    def _save_rng_state(self, output_dir: str) -> None:
        """Write what each rank has of its own, and wait for the others."""
        super()._save_rng_state(output_dir)
        progress = {"loss": float(self._tr_loss), "logged": self._globalstep_last_logged, "metrics": self._written()}
        write_json(Path(output_dir) / PROGRESS.format(rank=processes.rank()), progress)
        processes.meet()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _reading(checkpoint):
            super()._load_rng_state(checkpoint)
            if checkpoint is not None:
                progress = read_progress(Path(checkpoint), processes.rank())
                self._tr_loss.fill_(progress.loss)
                self._globalstep_last_logged = progress.logged

    def _load_callback_state(self) -> None:
        super()._load_callback_state()
        self._over = self.control.should_training_stop
        best = self.state.best_global_step  # the run directory may have been moved, or be from elsewhere
        self.state.best_model_checkpoint = str(self._checkpoint(best)) if best else None

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _reading(checkpoint):
            if checkpoint is not None:
                state = read_tensors(Path(checkpoint) / OPTIMIZER_NAME)
                check_optimizer(state, getattr(self.optimizer, "optimizer", self.optimizer), OPTIMIZER_NAME)
                state = read_tensors(Path(checkpoint) / SCHEDULER_NAME)
                check_scheduler(state, self.lr_scheduler, SCHEDULER_NAME)
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with _reading(checkpoint):
            super()._load_scaler(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._source = resume_from_checkpoint
        with _reading(resume_from_checkpoint):
            check_state(Path(resume_from_checkpoint), [*self.callback_handler.callbacks, self.control])
        self._load_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        self._load_weights(Path(self.state.best_model_checkpoint))

    def _load_weights(self, checkpoint: Path) -> None:
        load_state(self.trained, read_state(checkpoint / WEIGHTS), str(checkpoint / WEIGHTS))


@contextlib.contextmanager
def _reading(checkpoint: str | None) -> Iterator[None]:
    """Tell what is wrong with a checkpoint's files in one line; transformers reads no objects from them, only tensors.

    Raises:
        RunError: In place of whatever torch raises for a file that isn't what was written.
    """
    try:
        yield
    except Exception as error:
        raise RunError(
            f"checkpoint {checkpoint} is damaged or from elsewhere ({one_line(error)[:300]}); delete it to go on from "
            "the one before, or run.overwrite=true to begin again"
        ) from error


class _Stops(TrainerCallback):
    """Looks, at each step's and epoch's end, whether a signal has come to any rank."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.take_up(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        epoch_ends = control.should_training_stop or float(state.epoch or 0).is_integer()
        if processes.any_of(interruption.asked()) and not epoch_ends:
            self._trainer.stop(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if processes.any_of(interruption.asked()):
            self._trainer.stop(control)


def last_checkpoint(directory: Path) -> Path | None:
    """The newest complete checkpoint; what a killed process left half written is deleted.

    Args:
        directory: The run's checkpoints.

    Returns:
        A checkpoint directory, or None where there is none.
    """
    if not directory.is_dir():
        return None
    for left in directory.glob(".checkpoint-*"):
        name = directory / left.stem[1:]
        if left.suffix == ".old" and not name.exists():
            with writing(name):
                left.rename(name)
        else:
            shutil.rmtree(left, ignore_errors=True)  # where the disk can't be written, it will be told of that
    named = (path for path in directory.iterdir() if re.fullmatch(r"checkpoint-[0-9]{1,18}", path.name))
    found = sorted(named, key=step_of)
    while found:
        newest = found.pop()
        if _is_complete(newest):
            return newest
        shutil.rmtree(newest, ignore_errors=True)
    return None


def _is_complete(checkpoint: Path) -> bool:
    try:
        best = read_json(checkpoint / STATE)["best_global_step"]
        metrics_bytes(checkpoint)
        for step in (step_of(checkpoint), *([best] if best else [])):
            read_state(checkpoint.with_name(f"checkpoint-{step}") / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, AdapterError, RunError):
        return False
    return True


def metrics_bytes(checkpoint: Path) -> int:
    """Bytes of metrics.jsonl when a checkpoint was written."""
    return read_progress(checkpoint, 0).metrics


def _replace(draft: Path, target: Path) -> None:
    """Give a checkpoint its name; an older one of that name is there until then."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)
