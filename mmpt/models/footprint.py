"""The memory that a model and a training step take, computed from the model's configuration: no weights are loaded.

The model's own code and ours run on torch's device ``meta``, whose tensors have shapes and no numbers, while
:class:`mmpt.models.peak.Peak` adds up those that exist at the same time.

Letters: B batch, T source tokens, U label tokens, C candidate labels, N cached states of a text, d model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from mmpt.attention.architectures import architecture_of
from mmpt.attention.inject import injected_attention
from mmpt.config.schema import ModelConfig
from mmpt.methods.options import MethodOptions
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import CLASSES, Backbone, random_shape, source_of, stated_shape
from mmpt.models.engine import build_engine
from mmpt.models.parts import word_embeddings
from mmpt.models.peak import Fused, Peak
from mmpt.models.quantization import weight_bytes
from mmpt.models.size import network_without_weights

SHAPES = Path(__file__).with_name("shapes.yaml")
CANDIDATES = 2  # labels of a text whose states decoder-only models cache
TYPES = (torch.float32, torch.bfloat16)
# bytes of a step above the weights with int8, over those without: stored inputs of layers; docs/scale.md
INT8_STEP = 1.3
ADAM_BYTES = 8  # of each trained number: two averages in float32


@dataclass(frozen=True)
class Activations:
    """Bytes above the weights, with the network in one type of numbers."""

    step: int  # a training step in which every layer runs, with gradients and AdamW's averages
    cached: int | None  # the same from the activation cache; None where the method leaves nothing constant
    evaluation: int  # a batch of an evaluation, or of the pass that fills the cache
    cache: int | None  # stored for each text


@dataclass(frozen=True)
class Footprint:
    """What a network takes."""

    known: bool  # whether its shape is one of shapes.yaml, so that no hub was asked
    parameters: int  # numbers of the network
    trained: int  # numbers of the method
    weights: dict[str, int]  # bytes by type: float32, bfloat16, int8, nf4
    activations: dict[str, Activations]  # by type: float32, bfloat16
    uncached: str | None  # why the method has no activation cache

    def total(self, kind: str, *, cached: bool) -> int | None:
        """Bytes of weights and the larger of step and evaluation; quantised networks compute in bfloat16."""
        step, found = self.step(kind, cached=cached), self.of(kind)
        return None if step is None else self.weights[kind] + max(step, found.evaluation)

    def of(self, kind: str) -> Activations:
        """What is above weights of a kind."""
        return self.activations["float32" if kind == "float32" else "bfloat16"]

    def step(self, kind: str, *, cached: bool) -> int | None:
        """Bytes of a training step above weights of a kind; None where there is no cache."""
        step = self.of(kind).cached if cached else self.of(kind).step
        return step if step is None or kind != "int8" else round(INT8_STEP * step)


def footprint(
    config: ModelConfig, options: MethodOptions, *, batch: int, source: int, label: int, evaluation: int
) -> Footprint:
    """Compute what a model takes with a method.

    A training step has ``batch`` examples (B) of ``source`` and ``label`` tokens (T, U), an evaluation has
    ``evaluation`` at once. The shape of a hub's model is looked up in ``shapes.yaml`` first. ModelError: the
    configuration cannot be read or fetched, or makes no network. ConfigError: the method does not suit the model.
    """
    shape = shape_of(config)
    plain_config = replace(config, cross_attention="projected")
    activations = {}
    for dtype in TYPES:
        model, plain = _engine(config, shape, options, dtype), _engine(plain_config, shape, options, dtype)
        given = _batch(model, batch, source, label)
        stored = _states(model, given)
        trained = sum(parameter.numel() for parameter in model.method.parameters())
        activations[str(dtype).removeprefix("torch.")] = Activations(
            ADAM_BYTES * trained + _step_peak(plain, given),
            None if stored is None else ADAM_BYTES * trained + _step_peak(model, {**given, **stored}),
            _evaluation_peak(plain, _batch(plain, evaluation, source, label)),
            None if stored is None else sum(stored[name].nbytes for name in ("states", "means")) // batch,
        )
    network = shape.network(config)
    half = weight_bytes(network, torch.bfloat16, config.cross_attention)
    counts = {"float32": 2 * half["none"], "bfloat16": half["none"], "int8": half["int8"], "nf4": half["nf4"]}
    weights = {kind: count + 4 * trained for kind, count in counts.items()}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Footprint(shape.known, parameters, trained, weights, activations, model.cacheable_layers.reason)


@dataclass(frozen=True)
class Shape:
    """The shape of a network."""

    config: PreTrainedConfig  # as transformers has it
    # whether T5's head has weights of its own although transformers' configuration says that they are those of the
    # embeddings: it unties them when it loads such a checkpoint
    own_head: bool = False
    known: bool = False  # whether it is one of shapes.yaml

    def network(self, config: ModelConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """The network on the device ``meta``; a ``ModelError`` says that there is none of this shape."""
        architecture = architecture_of(self.config.model_type)
        kind, attention = CLASSES[architecture.kind], injected_attention(config.attention, architecture)
        network = network_without_weights(self.config, kind, f"model={config.name}", attention, dtype)
        if self.own_head:
            vocabulary, width = word_embeddings(network).weight.shape
            network.set_output_embeddings(nn.Linear(width, vocabulary, bias=False, device="meta", dtype=dtype))
        return network.requires_grad_(False).eval()


def shape_of(config: ModelConfig) -> Shape:
    """The shape of a model; of one on the hub, from ``shapes.yaml`` where that has it.

    ModelError: it cannot be read or fetched, or holds another architecture than ``config`` says.
    """
    if config.source == "random":
        return Shape(random_shape(config))
    if config.source == "hub" and config.path in _shapes():
        values = dict(_shapes()[str(config.path)])
        shape = AutoConfig.for_model(values.pop("model_type"), **values)
        return Shape(shape, _unties(shape, values), known=True)
    if config.source == "path" and str(config.path).endswith(".gguf"):
        file = Path(str(config.path))
        return Shape(AutoConfig.from_pretrained(file.parent, gguf_file=file.name))
    shape = stated_shape(config, path := source_of(config)[0])
    return Shape(shape, _unties(shape, PreTrainedConfig.get_config_dict(path, revision=config.revision)[0]))


def _unties(shape: PreTrainedConfig, settings: Mapping[str, Any]) -> bool:
    tied = bool(getattr(shape, "tie_word_embeddings", False))
    return architecture_of(shape.model_type).overflows and tied and settings.get("tie_word_embeddings") is False


@cache
def _shapes() -> dict[str, dict[str, Any]]:
    """Arguments of configuration classes by a model's name on the hub."""
    rows = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))
    return {name: {key: value for key, value in row.items() if key != "names"} for row in rows for name in row["names"]}


def _engine(config: ModelConfig, shape: Shape, options: MethodOptions, dtype: torch.dtype) -> AdaptedModel:
    network = shape.network(config, dtype)
    network.config.decoder_start_token_id = network.config.pad_token_id = 0  # which the tokenizer would settle
    nothing: Any = None  # a tokenizer would be needed for starting values
    backbone = Backbone(network, nothing, "", "", config.cross_attention)
    with torch.device("meta"):
        return build_engine(backbone, options, initialise=False).train()


def _batch(model: AdaptedModel, rows: int, source: int, label: int) -> dict[str, Tensor]:
    """Token ids (B, T), mask (B, T) and labels (B, U), or classes (B, 1)."""
    label = 1 if model.injection.architecture.has_head else label
    sizes = {"input_ids": source, "attention_mask": source, "labels": label}
    return {name: torch.ones(rows, size, dtype=torch.long, device="meta") for name, size in sizes.items()}


def _states(model: AdaptedModel, batch: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """A batch's cached activations, ``states`` (B, N, d) and what goes with them; None where nothing is constant."""
    if model.cacheable_layers.reason is not None:
        return None
    (rows, tokens), read = batch["input_ids"].shape, batch["labels"].shape[1] - 1
    more = CANDIDATES * read if model.injection.architecture.decoder_only else 0
    width, weight = model.method.shape.width, word_embeddings(model.backbone).weight
    return {
        "states": weight.new_empty(rows, tokens + more, model.width),
        "means": weight.new_empty(rows, width, dtype=torch.float32),
        "continuations": batch["labels"].new_ones(rows, CANDIDATES, max(read, 1)),
    }


def _step_peak(model: AdaptedModel, batch: Mapping[str, Tensor]) -> int:
    """The most bytes that exist at once in the forward and backward pass of a batch."""
    with _watched(model, batch) as peak:
        model(**batch).loss.backward()
    return peak.most


def _evaluation_peak(model: AdaptedModel, batch: Mapping[str, Tensor]) -> int:
    """The same where candidate labels are ranked."""
    model.eval()
    classes = model.injection.architecture.has_head
    candidates = [[label] if classes else [label] * batch["labels"].shape[1] for label in range(CANDIDATES)]
    with _watched(model, batch) as peak, torch.no_grad():
        model.rank(model.start(batch), candidates)
    return peak.most


@contextmanager
def _watched(model: AdaptedModel, batch: Mapping[str, Tensor]) -> Iterator[Peak]:
    with Fused(), Peak([*model.parameters(), *model.buffers()]) as peak, torch.device("meta"):
        peak.add(batch.values())
        yield peak
