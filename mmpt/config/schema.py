"""The typed configuration: one frozen dataclass a group. Imports nothing heavy.

``mmpt.config.check`` turns a composed Hydra config into a :class:`Config` or reports every problem at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class HubConfig:
    """Where a task lies on the hub: one parquet file a split, at a pinned revision."""

    repo: str
    revision: str
    files: dict[str, str]


@dataclass(frozen=True)
class CsvConfig:
    """How csv and tsv files are written."""

    # minimal: cells may be quoted (RFC 4180); none: quotes are text (GLUE); auto: minimal for csv, none for tsv
    quoting: Literal["auto", "minimal", "none"] = "auto"
    delimiter: str | None = None  # null: a comma in csv, a tab in tsv
    header: bool | None = None  # null: the first row names the columns, unless columns are given
    columns: list[str] | None = None  # names of the columns, for files without header
    encoding: str = "utf-8"


@dataclass(frozen=True)
class TaskConfig:
    """A text task as data (conf/task/NAME.yaml)."""

    name: str
    template: str  # 'rte sentence1: {premise} sentence2: {hypothesis}'
    label_field: str = "label"
    # label word -> the raw values that mean it; empty: free text (the label field holds the target text)
    labels: dict[str, list[Any]] = field(default_factory=dict)
    metric: str = "accuracy"  # a name of mmpt.data.metrics.TABLE, or of DIR/metric/NAME.py
    group_field: str | None = None  # rows with one value are one question (MultiRC)
    unroll: str | None = None  # 'multirc': nested official layout, one row an answer
    pair: list[str] | None = None  # for models with a classification head: a text or two, instead of template
    choices: list[list[str]] | None = None  # the same by label: the head scores each label's own text
    directory: str | None = None  # name of the folder in the official layout ('RTE')
    files: dict[str, str] = field(default_factory=dict)  # split -> file name below data.dir
    hub: HubConfig | None = None
    # a row with null, NaN, an infinite number or an empty cell where a text, target or group is needed: an error, left
    # out, or (texts alone) an empty text
    missing: Literal["error", "skip", "empty"] = "error"
    shots: int = 0  # training examples, with their answers, that stand before every text
    csv: CsvConfig = field(default_factory=CsvConfig)
    columns: list[str] | None = None  # the same as csv.columns
    parts: dict[str, TaskConfig] = field(default_factory=dict)  # of a mixture: filled in from mix.tasks


@dataclass(frozen=True)
class MixConfig:
    """Tasks that one adapter learns, with ``task=mix``."""

    tasks: list[str] = field(default_factory=list)  # names of conf/task
    sampling: Literal["proportional", "equal", "temperature"] = "proportional"
    temperature: float = 2.0  # of sampling=temperature: a task of n examples has a share proportional to n^(1/T)


@dataclass(frozen=True)
class MethodConfig:
    """A method by name, its options (a ``mmpt.methods.options.MethodOptions``), and learning rates by group."""

    name: str
    options: Any = None
    lr: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """The frozen backbone."""

    name: str
    source: Literal["bundled", "hub", "path", "package", "random"] = "bundled"
    # local directory; hub id where source is hub; PACKAGE/FOLDER, in an installed package, where it is package
    path: str | None = None
    revision: str | None = None
    architecture: str = "t5"  # model_type that the checkpoint must state; auto: whatever it states
    config: dict[str, Any] = field(default_factory=dict)  # shape of a random backbone
    dropout: Literal["none", "backbone"] = "none"
    attention: Literal["sdpa", "eager"] = "sdpa"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"  # auto: what the device multiplies fast
    quantization: Literal["none", "int8", "nf4"] = "none"  # of its linear layers (mmpt.models.quantization)
    device_map: Literal["auto"] | None = None  # auto: spread over GPUs, memory and disk; null: on one device
    max_memory: dict[str, str] = field(default_factory=dict)  # {0: 20GiB, cpu: 64GiB}, of device_map; empty: all
    # auto: cross attention without keys and values of the source where that costs less (mmpt.attention.absorb)
    cross_attention: Literal["auto", "absorbed", "projected"] = "auto"


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; learning rates belong to the method's groups."""

    name: Literal["adafactor", "adamw"]
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # adamw
    eps: float = 1e-8  # adamw
    clip_threshold: float = 1.0  # adafactor


@dataclass(frozen=True)
class SchedulerConfig:
    """The learning-rate schedule, by transformers' own names."""

    name: str = "linear"
    warmup: float = 0.06  # below 1: share of all steps; from 1 on: steps


@dataclass(frozen=True)
class TrainerConfig:
    """Length, batches and precision of training, under the names of transformers.TrainingArguments."""

    per_device_train_batch_size: int = 32  # examples of one forward pass, for each process
    gradient_accumulation_steps: int = 1  # forward passes of one optimizer step
    num_train_epochs: float = 30  # passes over the training split; 0: nothing is trained
    max_steps: int = -1  # optimizer steps in place of num_train_epochs; -1: num_train_epochs counts
    max_grad_norm: float = 1.0  # norm to which the gradient is clipped; 0: no clipping
    # cross_entropy of the target, label_ranking (softmax over the task's label words), or the name of a file
    # DIR/loss/NAME.py
    loss: str = "cross_entropy"
    # share of the target's probability that is spread over all tokens, or over all labels
    label_smoothing_factor: float = 0.0
    # when the validation split is scored, and a checkpoint saved
    eval_strategy: Literal["no", "steps", "epoch"] = "epoch"
    eval_steps: int | None = None  # for eval_strategy=steps; null: every logging_steps
    eval_delay: float = 0  # epochs (or steps, by eval_strategy) before the first evaluation
    save_steps: int = 500  # a checkpoint every so many steps, besides those of evaluations
    save_total_limit: int = 2  # checkpoints that stay; the best and the last one always do
    logging_steps: int = 10  # a line of metrics every so many steps
    logging_first_step: bool = False  # whether the first step has a line too
    bf16: bool = False  # mixed precision in bfloat16
    fp16: bool = False  # mixed precision in float16, with a scaled loss (GPU)
    tf32: bool | None = None  # whether a GPU multiplies float32 matrices in TF32; null: as PyTorch is set
    torch_compile: bool = False  # whether the training pass is compiled
    gradient_checkpointing: bool = False  # whether activations inside of layers are computed again in the backward pass
    group_by_length: bool = False  # whether batches have examples of similar length
    dataloader_num_workers: int = 0  # processes that make batches; 0: the main one does
    dataloader_prefetch_factor: int | None = None  # batches that each worker prepares ahead; null: 2
    dataloader_drop_last: bool = False  # whether the last batch of an epoch is left out where it is not full
    full_determinism: bool = False  # whether only deterministic operations are allowed (slower on a GPU)

    @property
    def evaluates_every(self) -> int | None:
        """Steps between evaluations with ``eval_strategy=steps``; None with another strategy."""
        return (self.eval_steps or self.logging_steps) if self.eval_strategy == "steps" else None


@dataclass(frozen=True)
class DataConfig:
    """Where examples come from and how they are cut."""

    name: Literal["bundled", "local", "hub"]
    dir: str | None = None
    max_length: int = 256
    # How validation and test come about. 'held_out': validation is cut from train, the official validation split is
    # the test set (published). 'official': files train, validation and test as they are, which local files always are
    # where there are all three.
    split: Literal["held_out", "official"] = "held_out"
    validation_fraction: float = 0.1
    validation_pick: Literal["last", "random"] = "last"  # last: per label, the last part of the file (published)
    limit_train: int | None = None
    limit_validation: int | None = None
    limit_test: int | None = None
    # data=hub: any dataset there, in place of task.hub
    repo: str | None = None  # OWNER/NAME
    config: str | None = None  # one of its configurations
    revision: str | None = None  # commit, branch or tag
    streaming: bool = False  # read no more than the limits (or trainer.max_steps) need
    num_proc: int = 1  # processes that tokenise


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run is judged, and by what one criterion its best checkpoint is chosen."""

    decoding: list[Literal["ranking", "generation"]] = field(default_factory=lambda: ["ranking"])
    best_by: Literal["score", "loss"] = "score"  # of the validation split
    patience: int | None = None  # evaluations without a better value until training stops
    max_new_tokens: int = 10
    key_cache: Literal["dynamic", "static"] = "dynamic"  # of generation
    bootstrap: int = 1000
    confidence: float = 0.95
    batch_size: int = 64


@dataclass(frozen=True)
class CacheConfig:
    """Where the states that nothing trained reaches are kept."""

    mode: Literal["auto", "ram", "disk", "off"] = "auto"  # auto: disk, else memory, else not at all
    dir: str | None = None  # None: $MMPT_CACHE, else $XDG_CACHE_HOME/mmpt, else ~/.cache/mmpt
    max_gb: float = 50.0  # 10⁹ bytes, of all that lies there
    dtype: Literal["model", "float32", "bfloat16", "float16"] = "model"  # of what is stored


@dataclass(frozen=True)
class LoggerConfig:
    """Where metrics go besides the run directory: any of the loggers, or none."""

    wandb: bool = False
    tensorboard: bool = False
    trackio: bool = False
    csv: bool = False
    project: str = "mmpt"
    entity: str | None = None  # wandb
    mode: Literal["auto", "online", "offline"] = "auto"  # wandb
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RunConfig:
    """Where the run directory lies, and what is done where memory runs out."""

    dir: str | None = None
    root: str = "runs"
    overwrite: bool = False
    retry_oom: bool = False  # true: a batch that doesn't fit is passed through in pieces


@dataclass(frozen=True)
class SweepConfig:
    """How a sweep goes about its trials; a trial's result doesn't depend on it."""

    on_failure: Literal["continue", "stop"] = "continue"  # stop: begin no further trial
    retry_failed: bool = False  # true: trials that failed under an earlier command are tried again
    output: Literal["lines", "all"] = "lines"  # lines: one a trial, the rest in a log | all: everything a run prints


@dataclass(frozen=True)
class Config:
    """One run, resolved."""

    task: TaskConfig
    method: MethodConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    data: DataConfig
    evaluation: EvaluationConfig
    logger: LoggerConfig
    run: RunConfig
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    seed: int = 1
    experiment: str | None = None
    sweep: SweepConfig = field(default_factory=SweepConfig)
