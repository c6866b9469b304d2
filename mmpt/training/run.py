"""One run: data, backbone and method joined, trained, evaluated, saved, and told."""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from mmpt.config.schema import Config
from mmpt.data.sources import Splits
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import save_adapter
from mmpt.models.backbone import Backbone
from mmpt.models.backbone_cache import acquire, release
from mmpt.models.gradient_checkpointing import checkpoint_layers
from mmpt.runs.console import Console
from mmpt.runs.loggers import Loggers, RunInfo, make_logger
from mmpt.runs.names import PREDICTIONS, summary
from mmpt.runs.record import RunRecord, read_result, read_status
from mmpt.runs.result import Result
from mmpt.training import distributed as processes
from mmpt.training import signals as interruption
from mmpt.training.caching import SplitCache
from mmpt.training.callbacks import Journal
from mmpt.training.evaluate import Evaluator, Predictions, Prepared
from mmpt.training.identity import Identity, identify
from mmpt.training.memory import explained, peak_memory, reset_peak_memory
from mmpt.training.resumable import last_checkpoint, metrics_bytes
from mmpt.training.trainer import PrefixTrainer, training_arguments


def run_experiment(
    config: Config,
    resolved: dict[str, Any],
    identity: Identity | None = None,
    on_score: Callable[[int, float], None] | None = None,
) -> Result:
    """Train, evaluate, log and save; a finished run is shown again, an interrupted one goes on.

    Args:
        config: The checked configuration.
        resolved: The same as plain values, written to the run directory and to the logger.
        identity: From :func:`mmpt.training.identity.identify`, where the caller has it already.
        on_score: Gets step and validation score at each evaluation; what it raises ends the run.

    Returns:
        The result, as result.json holds it.

    Raises:
        MmptError: Anything the user can act on. The run directory then says ``failed``, and why.
        Stopped: A signal asked for it. The run directory then says ``interrupted``.
    """
    with interruption.heeding():
        interruption.check()
        return _run_experiment(config, resolved, identity, on_score)


def _run_experiment(
    config: Config,
    resolved: dict[str, Any],
    identity: Identity | None,
    on_score: Callable[[int, float], None] | None,
) -> Result:
    began = time.perf_counter()
    transformers_logging.set_verbosity_error()
    processes.join()
    reset_peak_memory()
    identity = identity or identify(config)
    task, splits, fingerprint, directory = identity.task, identity.splits, identity.fingerprint, identity.directory
    console = Console(
        directory.expanduser().absolute(),
        None if processes.rank() == 0 else io.StringIO(),
    )
    console.first_line(
        task=task.name, method=config.method.name, model=config.model.name, seed=config.seed, origin=splits.origin
    )
    if processes.from_first(lambda: finished(directory, fingerprint)) and not config.run.overwrite:
        return _shown_again(directory, console)
    # before the run directory is touched
    backbone = acquire(config.model, getattr(config.method.options, "sites", "auto"), task.outputs)
    evaluator = Evaluator(
        task, backbone.tokenizer, config.evaluation, config.data.max_length, config.seed, backbone.kind
    )
    record = processes.open_record(
        lambda: RunRecord.open(directory, resolved=resolved, fingerprint=fingerprint, overwrite=config.run.overwrite)
    )
    if record.state == "done":  # by another process, while the backbone was loaded
        record.close()
        return _shown_again(directory, console)
    logger = make_logger(config.logger, console.note) if processes.rank() == 0 else Loggers([], console.note)
    run = _Run(config, resolved, splits, backbone, evaluator, record, logger, console, began, on_score)
    try:
        result = record.finish(run.carry_out())
    except (KeyboardInterrupt, SystemExit):
        run.interrupt()
        raise
    except BaseException as error:
        record.fail(error)
        logger.finish("failed")
        raise
    logger.summary(summary(result))
    logger.finish("done")
    console.final_table(result)
    return result


def _shown_again(directory: Path, console: Console) -> Result:
    """Show what a finished run found; no lock is needed."""
    console.note("this run is done; its result is shown again (run.overwrite=true repeats it)")
    result = read_result(directory)
    console.final_table(result)
    return result


def finished(directory: Path, fingerprint: str) -> bool:
    """Whether the directory holds this very run, done."""
    status = read_status(directory, fingerprint)
    return status is not None and status["status"] == "done"


@dataclass
class _Run:
    """The parts of one run under way."""

    config: Config
    resolved: dict[str, Any]
    splits: Splits
    backbone: Backbone
    evaluator: Evaluator
    record: RunRecord
    logger: Loggers
    console: Console
    began: float
    on_score: Callable[[int, float], None] | None = None

    def carry_out(self) -> Result:
        """Train and evaluate; returns the result without what the record fills in."""
        config = self.config
        arguments = training_arguments(config, self.record.checkpoints_dir)
        train, validation, test = (
            self.evaluator.prepare(split) for split in (self.splits.train, self.splits.validation, self.splits.test)
        )
        warnings = self._warnings(train, validation, test)
        set_seed(config.seed)
        dropout = config.model.dropout == "backbone"
        model = AdaptedModel.build(self.backbone, config.method.options, dropout=dropout)
        checkpoint_layers(model.injection, bool(config.trainer.get("gradient_checkpointing")))
        self.evaluator.check_longest(model.to(arguments.device), train, validation, test)
        with explained(config.evaluation.batch_size):
            train, validation, test = self._cache(model, arguments, train, validation, test)
        self._start_logger()
        journal = Journal(self.record, self.logger, on_score=self.on_score)
        trainer = PrefixTrainer(model, config, arguments, self.evaluator, train, validation, journal)
        if config.run.retry_oom:
            trainer.allow_pieces(functools.partial(self._warn, warnings))
        train_seconds = self._train(trainer, journal)
        with explained(config.evaluation.batch_size):
            scores = self._evaluate(trainer, validation, test)
        scores |= self.evaluator.baselines(train, test)
        size = save_adapter(self.record.adapter_dir, config.method.name, model.method, self._description())
        self.logger.artifact(self.record.adapter_dir, f"{self.record.directory.name}-adapter", "adapter")
        steps, epoch = trainer.state.global_step, trainer.state.epoch or 0.0
        seconds = sum(journal.step_seconds)
        content = {
            **self._identity(train, validation, test),
            "scores": scores,
            "parameters": self._parameters(model, size),
            "timing": {
                "step_ms_median": journal.median_step_ms(),
                "train_s": train_seconds,
                "total_s": time.perf_counter() - self.began,
                "examples_per_s": examples_a_step(arguments) * len(journal.step_seconds) / seconds if seconds else None,
            },
            "memory": {"peak_bytes": peak_memory()},
            "steps": steps,
            "epochs": round(epoch, 4),
            "best_step": trainer.state.best_global_step if arguments.load_best_model_at_end else steps,
            "warnings": warnings,
        }
        release(config.model, self.backbone)
        return Result.from_dict(content)

    def interrupt(self) -> None:
        """Note that a signal ended the run, and say where the same command goes on."""
        with interruption.last_words():
            checkpoint = last_checkpoint(self.record.checkpoints_dir) if processes.rank() == 0 else None
            self.record.interrupt()
            where = "before the first checkpoint" if checkpoint is None else f"at step {_step(checkpoint)}"
            how = f"Run the same command again to resume. Run directory: {self.record.directory}"
            self.console.note(f"Stopped {where}. {how}")
            self.logger.finish("interrupted")

    def _cache(self, model: AdaptedModel, arguments: TrainingArguments, *splits: Prepared) -> list[Prepared]:
        """Run the encoder once over all splits where it is a constant, and say so, or say what prevents it."""
        seen = arguments.max_steps * examples_a_step(arguments)
        cache = SplitCache(
            self.config.cache,
            model.to(arguments.device),
            self.backbone.fingerprint,
            self.config.model.name,
            self.evaluator,
            short=0 < seen < len(splits[0].examples),
            note=self.console.note,
        )
        return cache.fill(*splits)

    def _start_logger(self) -> None:
        config = self.config
        group = config.logger.group or f"{config.task.name}-{config.method.name}-{config.model.name}"
        tags = [config.task.name, config.method.name, config.model.name, *config.logger.tags]
        about = RunInfo(f"{group}-s{config.seed}", group, self.resolved, self.record.directory, tags, self._kept_step())
        self.logger.start(about)

    def _kept_step(self) -> int | None:
        """The last step that an interrupted run keeps, -1 where it begins again; None for a new run."""
        if self.record.state != "resume":
            return None
        checkpoint = last_checkpoint(self.record.checkpoints_dir)
        return -1 if checkpoint is None else _step(checkpoint)

    def _warnings(self, *splits: Prepared) -> list[str]:
        warnings = list(self.splits.notes)
        warnings += self.evaluator.reading.length_notes(splits, self.config.evaluation)
        if self.config.model.source == "random":
            warnings.append("the backbone has random weights: scores mean nothing")
        for text in warnings:
            self.console.warn(text)
        return warnings

    def _warn(self, warnings: list[str], text: str) -> None:
        warnings.append(text)
        self.console.warn(text)

    def _train(self, trainer: PrefixTrainer, journal: Journal) -> float:
        """Train, from the last checkpoint where there is one; returns seconds."""
        resumes = self.record.state == "resume"
        checkpoint = processes.from_first(lambda: last_checkpoint(self.record.checkpoints_dir) if resumes else None)
        done = 0 if checkpoint is None else _step(checkpoint)
        if resumes:
            if not self.record.truncate_metrics(0 if checkpoint is None else metrics_bytes(checkpoint)):
                self.console.warn(f"metrics.jsonl has lost lines of steps up to {done}")
            self.console.note(f"going on with an interrupted run, from step {done}")
        began = time.perf_counter()
        with interruption.deferred(), self.console.progress(total_steps(trainer), done) as journal.progress:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        journal.progress = None
        return time.perf_counter() - began

    def _evaluate(self, trainer: PrefixTrainer, validation: Prepared, test: Prepared) -> dict[str, Any]:
        """Score both splits by every decoding, and write predictions by the first."""
        scores: dict[str, Any] = {}
        for number, decoding in enumerate(self.config.evaluation.decoding):
            for name, split in (("validation", validation), ("test", test)):
                known = trainer.known_predictions() if number == 0 and split is validation else None
                predictions = known or self.evaluator.predict(trainer.adapted, split, decoding)
                scores[name if number == 0 else f"{name}_{decoding}"] = self.evaluator.scores(
                    split, predictions, decoding
                )
                if number == 0:
                    self._write_predictions(name, split, predictions)
        return scores

    def _write_predictions(self, name: str, split: Prepared, predictions: Predictions) -> None:
        rows = self.evaluator.rows(split, predictions)
        self.record.write_predictions(name, rows)
        if name == "test":
            columns = ["id", "source", "target", "prediction", "correct"]
            self.logger.table(PREDICTIONS, columns, [[row.get(key) for key in columns] for row in rows[:1000]])

    def _identity(self, train: Prepared, validation: Prepared, test: Prepared) -> dict[str, Any]:
        config = self.config
        return {
            "task": config.task.name,
            "method": config.method.name,
            "model": config.model.name,
            "data": {
                "name": config.data.name,
                "bundled": self.splits.bundled,
                "origin": self.splits.origin,
                "train": len(train.examples),
                "validation": len(validation.examples),
                "test": len(test.examples),
                "truncated": train.truncated + validation.truncated + test.truncated,
            },
            "seed": config.seed,
            "metric": self.evaluator.task.primary,
            "data_fingerprint": self.splits.fingerprint,
            "backbone_fingerprint": self.backbone.fingerprint,
        }

    def _parameters(self, model: AdaptedModel, size: int) -> dict[str, Any]:
        groups = {name: sum(p.numel() for p in found) for name, found in model.method.parameter_groups().items()}
        total = sum(p.numel() for p in model.parameters())
        return {"trainable": sum(groups.values()), "total": total, "bytes": size, "groups": groups}

    def _description(self) -> dict[str, Any]:
        config, backbone = self.config, self.backbone
        revision = backbone.revision or config.model.revision
        return {
            "backbone": {**asdict(config.model), "revision": revision, "fingerprint": backbone.fingerprint},
            "task": asdict(config.task),
            "evaluation": asdict(config.evaluation),
            "max_length": config.data.max_length,
            "seed": config.seed,
        }


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def examples_a_step(arguments: TrainingArguments) -> int:
    """Examples of one optimizer step, over all devices."""
    return arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size


def total_steps(trainer: PrefixTrainer) -> int:
    """Optimizer steps of the whole training."""
    arguments = trainer.args
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batches = len(trainer.get_train_dataloader())
    return int(-(-batches // arguments.gradient_accumulation_steps) * arguments.num_train_epochs)
