"""Load a frozen backbone and its tokenizer: bundled, from a directory, from the hub, or random."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.hooks import remove_hook_from_submodules
from huggingface_hub import logging as hub_logging
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto import modeling_auto
from transformers.utils import logging as transformers_logging

from mmpt.attention.architectures import Architecture, Kind, architecture_of, refuse_dtype, refuse_sites
from mmpt.config.schema import ModelConfig
from mmpt.data.special_tokens import settle
from mmpt.errors import ConfigError, ModelError
from mmpt.models.devices import places_of
from mmpt.models.fingerprint import has_weights, weights_fingerprint
from mmpt.models.model_files import local_folder
from mmpt.models.parts import head_parameters
from mmpt.models.quantization import quantization_settings
from mmpt.models.size import refuse_counts, refuse_network
from mmpt.utils.hub import fetch
from mmpt.utils.machine import fast_dtype
from mmpt.utils.untrusted import one_line

CLASSES: dict[Kind, Any] = {  # transformers' class for a kind of model
    "seq2seq": AutoModelForSeq2SeqLM,
    "causal": AutoModelForCausalLM,
    "encoder": AutoModelForSequenceClassification,
}
_CLASS_NAMES: dict[Kind, Mapping[str, str]] = {
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "encoder": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
}
SMALL = 5_000_000  # parameters; t5-small has 60 million
_THREADS = torch.get_num_threads()  # what torch chose for this machine


@dataclass(frozen=True)
class Backbone:
    """A frozen model in evaluation mode, its tokenizer, and a fingerprint of its weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    origin: str  # where it came from, in words
    cross_attention: str = "auto"
    revision: str | None = None  # the commit, of a hub's backbone
    fresh: tuple[str, ...] = ()  # parameters of the classification head that the checkpoint lacks
    # held during a prediction: what adapters share a backbone for, it carries for one of them at a time
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    @property
    def architecture(self) -> Architecture:
        """The model's row of the table of architectures."""
        return architecture_of(self.model.config.model_type)

    def has(self, fingerprint: object) -> bool:
        """Whether a fingerprint, as an adapter states it, is that of these weights."""
        return self.fingerprint == fingerprint or has_weights(self.model, fingerprint)

    @property
    def kind(self) -> Kind:
        """A file of ``mmpt.models.kinds``."""
        return self.architecture.kind


def load_backbone(config: ModelConfig, *, sites: Sequence[str] | str = "auto", classes: int = 2) -> Backbone:
    """Load what ``config`` names, frozen, with attention that can carry prefixes.

    Args:
        config: Source, path, stated architecture, dtype and attention.
        sites: ``method.sites``, which are refused before any weight is loaded where the backbone lacks them.
        classes: Outputs of the head, for kind ``encoder``.

    Returns:
        The backbone; no parameter requires gradient.

    Raises:
        ModelError: Nothing there, other architecture than stated, no safetensors, cannot be injected, or no hub.
        ConfigError: The architecture lacks the sites, or cannot run the attention that is asked for.
    """
    config = replace(config, dtype=fast_dtype()[0]) if config.dtype == "auto" else config
    path, origin = source_of(config)
    transformers_logging.disable_progress_bar()
    stated = stated_shape(config, path)
    model_type = config.architecture if config.source == "random" else stated.model_type
    architecture = architecture_of(model_type)
    refuse_sites(model_type, sites)
    refuse_dtype(model_type, config.dtype)
    if architecture.soft_capped and config.attention != "eager":
        raise ConfigError(f"{model_type} caps its attention scores, which sdpa cannot; set model.attention=eager")
    more: dict[str, Any] = {"num_labels": classes} if architecture.has_head else {}
    if config.source == "random":
        model = _random(config, architecture.kind, more)
        fresh = head_parameters(model)
    else:
        network = refuse_network(stated, CLASSES[architecture.kind], config, f"model={config.name}: {path}")
        more |= {"quantization_config": quantization_settings(network, config)}
        if config.device_map is not None:  # what lies on disk is read from the checkpoint itself
            more |= {"device_map": places_of(network, config)}
        model, fresh = _pretrained(config, architecture.kind, path, more)
        if config.device_map is None:
            remove_hook_from_submodules(model)  # accelerate's, which quantised models get, although on one device
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=config.revision, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exception for a damaged file
        raise _unreadable(config, path, error) from error
    settle(tokenizer, model, f"model={config.name}")
    model.requires_grad_(False)
    model.eval()
    use_threads(model)
    commit = _commit(config) if config.source == "hub" else None
    fingerprint = weights_fingerprint(model, without=fresh)
    return Backbone(model, tokenizer, fingerprint, origin, config.cross_attention, commit, tuple(fresh))


def stated_shape(config: ModelConfig, path: str) -> PreTrainedConfig:
    """The configuration of a directory or a hub's repository; a ``ModelError`` where it is not as ``config`` says."""
    hub_logging.set_verbosity_error()  # of each attempt to reach a hub
    try:
        if config.source == "hub" and _commit(config) is None:  # transformers would try for half a minute
            fetch(path, "config.json", repo_type="model", revision=config.revision or "main")
        settings, _ = PreTrainedConfig.get_config_dict(path, revision=config.revision)
        refuse_counts(settings, f"model={config.name}: config.json of {path}")
        stated = AutoConfig.from_pretrained(path, revision=config.revision, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # of transformers, for a shape that cannot be
        raise _unreadable(config, path, error) from error
    if config.architecture not in ("auto", stated.model_type) and config.source != "random":
        raise ModelError(
            f"model={config.name}: {path} holds a {stated.model_type!r} model, but model.architecture="
            f"{config.architecture}; choose the model YAML of that architecture, or set model.architecture=auto"
        )
    return stated


def _commit(config: ModelConfig) -> str | None:
    """The commit of a hub's backbone, by the folder that its files were stored in."""
    file = try_to_load_from_cache(str(config.path), "config.json", revision=config.revision)
    return Path(file).parent.name if isinstance(file, str) else None


def source_of(config: ModelConfig) -> tuple[str, str]:
    """The directory or hub id to read from, and its description; a ``ModelError`` says that there is none."""
    from mmpt.bundled import MODEL_DIR

    if config.source in ("bundled", "random"):
        word = "bundled toy backbone" if config.source == "bundled" else "random weights (scores mean nothing)"
        return str(MODEL_DIR), word
    if config.path is None:
        raise ModelError(f"model={config.name} needs model.path=DIR")
    if config.source == "hub":
        return config.path, f"hub {config.path}"
    return str(local_folder(config)), f"{'package' if config.source == 'package' else 'directory'} {config.path}"


def _unreadable(config: ModelConfig, path: str, error: Exception) -> ModelError:
    if config.source == "hub":
        return ModelError(
            f"model={config.name}: {path} cannot be fetched from the hub ({type(error).__name__}); without a hub, "
            "model=bundled, model=t5_small_random and model.path=DIR work"
        )
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelError(f"model={config.name}: {path} cannot be read: {first}")


def _pretrained(config: ModelConfig, kind: Kind, path: str, more: dict[str, Any]) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the parameters of its classification head that the checkpoint lacks or has in another shape."""
    dtype = getattr(torch, config.dtype)
    options: dict[str, Any] = {"attn_implementation": f"mmpt_{config.attention}", "dtype": dtype, **more}
    options["ignore_mismatched_sizes"] = "num_labels" in more
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # missing weights are reported below
    try:
        model, report = CLASSES[kind].from_pretrained(
            path,
            revision=config.revision,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # safetensors and torch raise types of their own for damaged files
        raise _unreadable(config, path, error) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    absent = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    head = head_parameters(model)
    if missing := [name for name in absent if name not in head]:
        raise ModelError(f"model={config.name}: {path} lacks {len(missing)} weights, the first is {missing[0]}")
    return model, absent


def random_shape(config: ModelConfig, **more: int) -> PreTrainedConfig:
    """The configuration that ``model.config`` describes; a ``ModelError`` where it asks for too much."""
    refuse_counts(config.config, f"model={config.name}: model.config")
    return AutoConfig.for_model(config.architecture, **{**config.config, **more})


def _random(config: ModelConfig, kind: Kind, more: dict[str, int]) -> PreTrainedModel:
    where = f"model={config.name}: model.config"
    try:
        shape = random_shape(config, **more)
        refuse_network(shape, CLASSES[kind], replace(config, dtype="float32"), where)
        options = {"attn_implementation": f"mmpt_{config.attention}", "trust_remote_code": False}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: PreTrainedModel = CLASSES[kind].from_config(shape, **options)
    except ModelError:
        raise
    except Exception as error:  # of transformers and torch, for a shape that cannot be
        raise ModelError(f"{where} makes no network ({one_line(error)})") from error
    return model.to(getattr(torch, config.dtype))


def use_threads(model: nn.Module) -> None:
    """Give small models one CPU thread: their matrices are too small to share, and waiting threads cost most of a step.

    ``OMP_NUM_THREADS`` in the environment is left as it is.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        small = sum(parameter.numel() for parameter in model.parameters()) < SMALL
        torch.set_num_threads(1 if small else _THREADS)


def refuse_class(model: PreTrainedModel) -> None:
    """Refuse a model whose class is not that of its architecture's kind, by a ModelError with the class to use."""
    model_type = model.config.model_type
    kind = architecture_of(model_type).kind
    wanted, auto = _CLASS_NAMES[kind].get(model_type), CLASSES[kind].__name__
    if wanted not in {base.__name__ for base in type(model).__mro__}:
        raise ModelError(
            f"a {type(model).__name__} cannot be adapted; load {model_type} models as {wanted} ({auto}.from_pretrained)"
        )
