"""What a run does between its opening and its result: prepare data and model, cache, train, evaluate, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from mmpt.config.schema import Config, TaskConfig
from mmpt.data.collate import CachingCollator, one_source_a_row
from mmpt.data.tokenizer import tokenizer_fingerprint
from mmpt.methods.options import Start
from mmpt.models.activation_probe import text_ids
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import save_adapter
from mmpt.models.backbone import Backbone
from mmpt.models.engine import build_engine
from mmpt.models.gradient_checkpointing import checkpoint_layers
from mmpt.models.quantization import numbers
from mmpt.runs.console import Console
from mmpt.runs.loggers import Loggers, RunInfo
from mmpt.runs.names import PREDICTIONS
from mmpt.runs.record import RunRecord
from mmpt.runs.result import Result
from mmpt.training import distributed, signals
from mmpt.training.batches import Batches
from mmpt.training.caching import SplitCache
from mmpt.training.checkpoint import last_checkpoint, read_progress, step_of
from mmpt.training.evaluate import Evaluator, Prepared
from mmpt.training.identity import Identity
from mmpt.training.loop import Trainer
from mmpt.training.losses import create_loss
from mmpt.training.memory import MicroBatches, oom_as_error, peak_memory
from mmpt.training.monitor import Monitor

Splits = Mapping[str, Prepared]
_tokenised: dict[tuple[object, ...], tuple[Splits, list[str]]] = {}  # of the last run in this process


@dataclass
class Experiment:
    """The parts of one run under way."""

    config: Config
    identity: Identity
    backbone: Backbone
    evaluator: Evaluator
    record: RunRecord
    logger: Loggers
    console: Console
    warnings: list[str] = field(default_factory=list)
    checkpoint: Path | None = None  # where the run resumes

    def _start_logger(self, resolved: dict[str, Any]) -> None:
        """Begin, or continue, the run at the loggers."""
        config = self.config
        group = config.logger.group or f"{config.task.name}-{config.method.name}-{config.model.name}"
        tags = [config.task.name, config.method.name, config.model.name, *config.logger.tags]
        resumed = None  # the last step of an interrupted run that stays valid, -1: none
        if self.record.state == "resume":
            # one process clears away what a killed one left, and chooses for all
            self.checkpoint = distributed.broadcast(lambda: last_checkpoint(self.record.checkpoints_dir))
            resumed = -1 if self.checkpoint is None else step_of(self.checkpoint)
        self.logger.start(RunInfo(f"{group}-s{config.seed}", group, resolved, self.record.directory, tags, resumed))

    def carry_out(
        self,
        resolved: dict[str, Any],
        accelerator: Accelerator,
        began: float,
        on_score: Callable[[int, float], None] | None = None,
    ) -> Result:
        """Train and evaluate; returns the result without what the record fills in.

        ``resolved`` is the configuration as plain values, for the loggers; ``began`` is when the run began, by
        ``time.perf_counter``; ``on_score`` is called with step and validation score at each evaluation.
        """
        self._start_logger(resolved)
        config, splits = self.config, self._tokenised()
        set_seed(config.seed)
        dropout = config.model.dropout == "backbone"
        model = build_engine(self.backbone, config.method.options, dropout=dropout)
        if config.model.device_map is None:  # else each part is where it belongs
            model.to(accelerator.device)
        checkpoint_layers(model.injection, config.trainer.gradient_checkpointing)
        with oom_as_error(config.evaluation.batch_size):
            self.evaluator.check_longest(model, *splits.values())
            splits = self._cached(model, splits)
            if self.checkpoint is None:  # which has what the router took from them
                model.standardize_router(self._router_inputs(model, splits["train"]))
        trainer = self._trainer(model, splits, accelerator, Monitor(self.record, self.logger, on_score))
        if distributed.rank() > 0:  # noise and dropout of its own; what was drawn before is the same in all processes
            set_seed(config.seed + distributed.rank())
        train_seconds = self._train(trainer)
        with oom_as_error(config.evaluation.batch_size):
            scores = self._scores(trainer, splits)
        scores |= self.evaluator.baselines(splits["train"], splits["test"])
        size = save_adapter(
            self.record.adapter_dir, model.method, description(config, self.identity.task.config, self.backbone)
        )
        self.logger.artifact(self.record.adapter_dir, f"{self.record.directory.name}-adapter", "adapter")
        measured = {"scores": scores, "parameters": _parameters(model, size), "warnings": self.warnings}
        times = {"train_s": train_seconds, "total_s": time.perf_counter() - began}
        return Result.from_dict({**self._about(splits), **measured, **_measured(trainer, times)})

    def _tokenised(self) -> Splits:
        """The three splits as token ids, with warnings; the next trial of a sweep that reads the same gets the same."""
        given, backbone, config = self.identity.splits, self.backbone, self.config
        settings = (repr(config.task), repr(config.evaluation), config.data.max_length)
        read_by = (tokenizer_fingerprint(backbone.tokenizer), backbone.kind, *settings)
        if (key := (given.origin, given.fingerprint, *read_by)) not in _tokenised:
            parts = {"train": given.train, "validation": given.validation, "test": given.test}
            splits: Splits = {name: self.evaluator.prepare(examples) for name, examples in parts.items()}
            notes = self.evaluator.reading.notes(list(splits.values()), config.evaluation)
            _tokenised.clear()
            _tokenised[key] = splits, notes
        splits, notes = _tokenised[key]
        for text in (*given.notes, *notes):
            self._warn(text)
        if config.model.source == "random":
            self._warn("the backbone has random weights: scores mean nothing")
        options = config.method.options
        if isinstance(options, Start) and options.init_text is not None:
            tokens = len(text_ids(backbone.tokenizer, options.init_text))
            if tokens > options.num_virtual_tokens:
                self._warn(
                    f"method.init_text has {tokens} tokens, of which the start has the first "
                    f"{options.num_virtual_tokens}; method.num_virtual_tokens={tokens} keeps all"
                )
        return splits

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self.console.warn(text)

    def _cached(self, model: AdaptedModel, splits: Splits) -> Splits:
        """The splits with the states below the first trained layer, where those are constants."""
        settings = self.config.trainer
        seen = settings.max_steps * settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        short = 0 < seen * distributed.count() < len(splits["train"].examples)
        names = (self.backbone.fingerprint, self.config.model.name)
        cache = SplitCache(self.config.cache, model, *names, self.evaluator, short, self.console.note)
        return dict(zip(splits, cache.fill(*splits.values()), strict=True))

    def _router_inputs(self, model: AdaptedModel, split: Prepared) -> Iterator[Mapping[str, Tensor]]:
        """Batches of what a router reads of a split; of cached states only the means, where it reads no more."""
        if split.activations is not None and model.method.options.reads == "embedding":
            yield {"means": split.activations.means}
            return
        for _, batch in self.evaluator.batches(split, next(model.parameters()).device):
            yield one_source_a_row(batch)

    def _trainer(self, model: AdaptedModel, splits: Splits, accelerator: Accelerator, monitor: Monitor) -> Trainer:
        config, train = self.config, splits["train"]
        collate = CachingCollator(self.evaluator.collate, train.activations)
        share = (accelerator.process_index, accelerator.num_processes)
        mixed = (config.mix, [str(example.task) for example in train.examples] if config.task.parts else [])
        batches = Batches(train.features, train.longest, collate, config.trainer, config.seed, *share, *mixed)
        targets = (feature["labels"] for feature in train)
        settings = config.trainer
        loss = create_loss(settings.loss, settings.label_smoothing_factor, self.evaluator.candidates, targets)
        trainer = Trainer(config, model, loss, batches, self.evaluator, splits["validation"], monitor, accelerator)
        if config.run.retry_oom and accelerator.num_processes == 1:
            trainer.micro_batches = MicroBatches(self._warn)
        return trainer

    def _train(self, trainer: Trainer) -> float:
        """Train, from the last checkpoint where there is one; returns seconds."""
        checkpoint = self.checkpoint
        done = 0 if checkpoint is None else step_of(checkpoint)
        if self.record.state == "resume":
            if not self.record.truncate_metrics(0 if checkpoint is None else read_progress(checkpoint).metrics_bytes):
                self.console.warn(f"metrics.jsonl has lost lines of steps up to {done}")
            self.console.note(f"resuming an interrupted run from step {done}")
        began = time.perf_counter()
        with signals.deferred(), self.console.progress(trainer.total_steps, done) as trainer.monitor.progress:
            trainer.train(checkpoint)
        trainer.monitor.progress = None
        return time.perf_counter() - began

    def _scores(self, trainer: Trainer, splits: Splits) -> dict[str, Any]:
        """Score validation and test split by every decoding, and write predictions by the first."""
        scores: dict[str, Any] = {}
        for number, decoding in enumerate(self.config.evaluation.decoding):
            for name in ("validation", "test"):
                split = splits[name]
                known = trainer.known_predictions() if number == 0 and name == "validation" else None
                predictions = known or self.evaluator.predict(trainer.model, split, decoding)
                key = name if number == 0 else f"{name}_{decoding}"
                scores[key] = self.evaluator.scores(split, predictions, decoding)
                if number == 0:
                    rows = self.evaluator.rows(split, predictions)
                    self.record.write_predictions(name, rows)
        columns = ["id", "source", "target", "prediction", "correct"]  # of the test split
        self.logger.table(PREDICTIONS, columns, [[row.get(key) for key in columns] for row in rows[:1000]])
        return scores

    def _about(self, splits: Splits) -> dict[str, Any]:
        """What ran, on which data."""
        config, given = self.config, self.identity.splits
        data = {name: len(split.examples) for name, split in splits.items()}
        data["truncated"] = sum(split.truncated for split in splits.values())
        return {
            "task": config.task.name,
            "method": config.method.name,
            "model": config.model.name,
            "data": {"name": config.data.name, "bundled": given.bundled, "origin": given.origin, **data},
            "seed": config.seed,
            "metric": self.evaluator.task.primary,
            "metric_range": None if (ends := self.evaluator.task.range) is None else list(ends),
            "data_fingerprint": given.fingerprint,
            "backbone_fingerprint": self.backbone.fingerprint,
            "own_code": self.identity.own_code,
            "processes": distributed.count(),
        }


def description(config: Config, task: TaskConfig, backbone: Backbone) -> dict[str, Any]:
    """What a user of an adapter must know, as adapter.json has it."""
    revision = backbone.revision or config.model.revision
    model = replace(config.model, revision=revision, max_memory={})  # another machine has other room
    return {
        "backbone": {**asdict(model), "fingerprint": backbone.fingerprint},
        "tokenizer": tokenizer_fingerprint(backbone.tokenizer),
        "task": asdict(task),
        "evaluation": asdict(config.evaluation),
        "max_length": config.data.max_length,
        "seed": config.seed,
    }


def _parameters(model: AdaptedModel, size: int) -> dict[str, Any]:
    groups = {name: sum(p.numel() for p in parameters) for name, parameters in model.method.parameter_groups().items()}
    total = sum(map(numbers, model.parameters()))
    return {"trainable": sum(groups.values()), "total": total, "bytes": size, "groups": groups}


def _measured(trainer: Trainer, times: dict[str, float]) -> dict[str, Any]:
    """Steps, times and memory of a training."""
    monitor, batches, steps = trainer.monitor, trainer.batches, trainer.state.step
    seconds = sum(monitor.step_seconds)
    speed = batches.examples_per_step * len(monitor.step_seconds) / seconds if seconds else None
    return {
        "steps": steps,
        "epochs": round(steps / batches.steps_per_epoch, 4),
        "best_step": steps if trainer.state.best_step is None else trainer.state.best_step,
        "timing": {**times, "step_ms_median": monitor.median_step_ms(), "examples_per_s": speed},
        "memory": {"peak_bytes": peak_memory()},
    }
