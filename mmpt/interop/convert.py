"""Plain prefixes of decoder-only models to and from peft's format: ``python -m mmpt.convert to-peft | from-peft``.

peft keeps a prefix as ``prompt_embeddings`` (P, 2L·H·k), layer l with keys in slot 2l and values in slot 2l+1, as
layout ``per_layer`` does. What differs is where the text lies: in peft behind the prefix, at positions from P on; by
default here at 0, whatever the prefix. So an imported adapter has ``method.layout=peft``, which shifts the text. Of one
that is exported without that layout, the keys of rotary models (Llama, Qwen, Gemma) are rotated by P positions, which
is the same function; for learnt positions (GPT-2, OPT) nothing is.

Letters: P prefix tokens, L layers, H key/value heads, k head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.attention import positions
from mmpt.config.compose import CONF, compose, read_command_line
from mmpt.errors import AdapterError, MmptError
from mmpt.methods.layout import Layout
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import (
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    load_state,
    peft_base,
    read_adapter,
    read_state,
    save_adapter,
    serialised,
)
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.engine import build_engine
from mmpt.training.experiment import description
from mmpt.training.settings import check
from mmpt.utils.files import read_json, write_bytes, write_json

TENSOR = "prompt_embeddings"


def to_peft(directory: Path, target: Path, *, model: str | None = None) -> None:
    """Write the plain prefix of a finished run, or of its adapter folder, as peft does.

    ``target`` is the directory of ``adapter_config.json`` and ``adapter_model.safetensors``; ``model`` is another place
    of the backbone.

    Raises:
        AdapterError: The adapter is no plain prefix of a decoder-only model, or peft cannot express it.
        ModelError: The backbone cannot be loaded.
    """
    from mmpt.predictor import join

    adapter = read_adapter(directory)
    stated = adapter.description.get("backbone")
    if not isinstance(stated, dict):
        raise AdapterError(f"{directory}: adapter.json names no backbone; no run wrote it")
    backbone, built = join(adapter, directory, model=model)
    tensor = prefix_tensor(backbone, built, str(directory))
    shape = built.injection.shapes["self"]
    write_prefix(target, tensor, shape.layers, shape.heads, peft_base(stated))


def prefix_tensor(backbone: Backbone, model: AdaptedModel, where: str) -> Tensor:
    """The prefix (P, 2L·H·k) as peft has it, of what a method adds; ``where`` begins :func:`to_peft`'s errors."""
    if not backbone.architecture.decoder_only or model.method.reads_input:
        raise AdapterError(f"{where} is no plain prefix of a decoder-only model; peft's format has no other")
    with torch.no_grad():
        contribution = model.method(None)
    prefix, shape = contribution.prefixes.get("self"), model.injection.shapes["self"]
    if prefix is None or contribution.prompt is not None or contribution.embedding_update is not None:
        raise AdapterError(f"{where} has no prefix, or more than one; peft's format has nothing else")
    if prefix.output_gate is not None or prefix.attend is not None or prefix.key.shape[1] != shape.layers:
        raise AdapterError(f"{where} has a gate, or no prefix in some layers; peft's format has neither")
    key, value = (part[0].detach().float() for part in prefix.expanded(1))  # (L, H, P, k), masks multiplied in
    if prefix.shift == 0:
        key = _behind(backbone, key, where)
    return Layout("per_layer", shape).from_keys_values(key, value)


def _behind(backbone: Backbone, key: Tensor, where: str) -> Tensor:
    """Keys (L, H, P, k) that do behind themselves what these do with the text at position 0."""
    architecture, config = backbone.architecture, backbone.model.config
    place = backbone.model.base_model.get_submodule(str(architecture.positions))
    if not architecture.rotary:
        raise AdapterError(
            f"{where}: the text lies at position 0, in peft behind the prefix, and the learnt positions of "
            f"{config.model_type} cannot make up for that; train with method.layout=peft to export"
        )
    kinds: Sequence[str | None] = getattr(config, "layer_types", None) or [None] * len(key)
    count = key.shape[2]
    return torch.stack([positions.rotated(place, layer, count, kind) for layer, kind in zip(key, kinds, strict=True)])


def write_prefix(target: Path, tensor: Tensor, layers: int, heads: int, base: dict[str, Any]) -> None:
    """Write peft's two files into a directory: a tensor (P, 2L·H·k), and L, H and what names the backbone."""
    from peft import PrefixTuningConfig

    width = tensor.shape[1] // (2 * layers)
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=tensor.shape[0],
        num_layers=layers,
        num_attention_heads=heads,
        token_dim=width,
        num_transformer_submodules=1,
        encoder_hidden_size=width,
        inference_mode=True,
    )
    write_bytes(target / PEFT_WEIGHTS, serialised({TENSOR: tensor}))
    write_json(target / PEFT_CONFIG, {**config.to_dict(), **base})


def from_peft(source: Path, target: Path, words: Sequence[str]) -> None:
    """Make an adapter, in ``adapter/`` below ``target``, of a prefix that peft trained.

    Only the JSON and the safetensors of peft's directory are read. ``words`` are settings as on the command line: task,
    model, evaluation.

    Raises:
        AdapterError: The files are damaged, of another method, or of another backbone.
        ConfigError: The settings are wrong.
        ModelError: The backbone cannot be loaded.
    """
    tensor = read_prefix(source)
    method = ["method=prefix", "method.layout=peft", f"method.num_virtual_tokens={tensor.shape[0]}"]
    line = read_command_line([*method, *words], CONF)
    config = check(compose(line.overrides, CONF))
    backbone = load_backbone(config.model, sites=["self"])
    model = build_engine(backbone, config.method.options, initialise=False)
    load_state(model.method, {"prefix.self": tensor}, str(source))
    save_adapter(target / "adapter", model.method, description(config, config.task, backbone))


def read_prefix(source: Path) -> Tensor:
    """The prefix (P, 2L·H·k) of peft's directory; errors as of :func:`from_peft`."""
    if not (source / PEFT_CONFIG).is_file():
        raise AdapterError(f"{source} has no {PEFT_CONFIG}; give a directory that peft's save_pretrained wrote")
    try:
        kind = read_json(source / PEFT_CONFIG).get("peft_type")
    except MmptError as error:
        raise AdapterError(f"{source / PEFT_CONFIG} is no JSON object; copy it again") from error
    if kind != "PREFIX_TUNING":
        raise AdapterError(f"{source} has peft_type {kind!r}; only PREFIX_TUNING can be read")
    tensor = read_state(source / PEFT_WEIGHTS).get(TENSOR)
    if tensor is None or tensor.dim() != 2:
        raise AdapterError(f"{source / PEFT_WEIGHTS} has no table {TENSOR}; which peft writes for a prefix")
    return tensor.float()
