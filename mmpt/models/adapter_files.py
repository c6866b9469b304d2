"""Saved adapters: ``adapter.safetensors`` has the method's tensors, ``adapter.json`` all that is needed to use it.

An adapter may come from elsewhere, so both files are untrusted input: nothing in them is executed, and every value is
checked before it is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from mmpt.errors import AdapterError, ConfigError
from mmpt.methods import parse
from mmpt.methods.base import Method, saved_tensors
from mmpt.utils.files import write_bytes, write_json
from mmpt.utils.machine import memory_bytes
from mmpt.utils.untrusted import parse_json, read_bytes, read_text

FORMAT = 1
WEIGHTS, DESCRIPTION = "adapter.safetensors", "adapter.json"
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # beside ours, for peft's own methods


@dataclass(frozen=True)
class Adapter:
    """A method's saved tensors, and what they belong to."""

    method: str
    options: dict[str, Any]
    state: dict[str, Tensor]
    description: dict[str, Any]  # all of adapter.json


def save_adapter(directory: Path, method: Method, description: Mapping[str, Any]) -> int:
    """Write a trained method; returns bytes of the weights. The JSON comes last: a directory with it is complete.

    ``description`` is what else a user of the adapter must know: backbone, task, evaluation. RunError: the files cannot
    be written. AdapterError: a router waits for the training texts.
    """
    if (router := method.standardizing) is not None and not router.ready:
        raise AdapterError(
            "the router has not read the training texts (router_standardize=True); call "
            "mmpt.standardize_router(model, batches) and train it before you save it"
        )
    options, state = method.folded()
    blob = serialised(state)
    write_bytes(directory / WEIGHTS, blob)
    if (foreign := method.in_peft()) is not None:
        write_bytes(directory / PEFT_WEIGHTS, serialised(foreign[1]))
        write_json(directory / PEFT_CONFIG, {**foreign[0], **peft_base(description.get("backbone"))})
    content = {"format": FORMAT, "method": {"name": options.name, "options": asdict(options)}, **description}
    write_json(directory / DESCRIPTION, {**content, "sha256": hashlib.sha256(blob).hexdigest()})
    return len(blob)


def peft_base(backbone: Any) -> dict[str, Any]:
    """What peft's configuration says of the backbone."""
    stated = backbone if isinstance(backbone, Mapping) else {}
    path = stated.get("path") if stated.get("source") in ("hub", "path") else None
    return {"base_model_name_or_path": path, "revision": stated.get("revision")}


def read_adapter(directory: Path) -> Adapter:
    """Read and check what :func:`save_adapter` wrote, from its directory or that of a run with it in ``adapter/``.

    Raises:
        AdapterError: Missing, corrupt, of a newer format, or not of the described method.
    """
    folder = adapter_directory(directory)
    if not (folder / DESCRIPTION).is_file() or not (folder / WEIGHTS).is_file():
        raise AdapterError(f"{directory} holds no finished adapter ({DESCRIPTION} and {WEIGHTS}); give a run directory")
    try:
        content = parse_json(read_text(folder / DESCRIPTION))
        name, options = content["method"]["name"], dict(content["method"]["options"])
        version, digest = int(content["format"]), str(content["sha256"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise AdapterError(f"{folder / DESCRIPTION} is damaged ({type(error).__name__}: {error})") from error
    if version > FORMAT:
        raise AdapterError(f"{folder} has adapter format {version}, this mmpt reads up to {FORMAT}; update mmpt")
    return Adapter(str(name), options, read_state(folder / WEIGHTS, digest), content)


def adapter_directory(directory: Path) -> Path:
    """The folder of an adapter: the directory itself, or ``adapter/`` of a run directory."""
    return directory if (directory / DESCRIPTION).is_file() else directory / "adapter"


def load_state(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a method's parameters and constants of the same names.

    AdapterError: names or shapes differ, or a value is not finite; ``where`` names their source.
    """
    parameters, router = saved_tensors(module), module.standardizing if isinstance(module, Method) else None
    if wrong := sorted(set(parameters) ^ set(state)):
        raise AdapterError(
            f"{where}: parameter {wrong[0]} is only on one side; it belongs to another method or options"
        )
    for name, parameter in parameters.items():
        if parameter.shape != state[name].shape:
            shapes = f"{tuple(state[name].shape)}, the method has {tuple(parameter.shape)}"
            raise AdapterError(f"{where}: parameter {name} has shape {shapes}; it belongs to another backbone")
        if not torch.isfinite(state[name]).all():
            raise AdapterError(f"{where}: parameter {name} holds values that are no numbers; it cannot be used")
        if router is not None and parameter is router.deviation and not (state[name] > 0).all():
            raise AdapterError(f"{where}: {name} holds a standard deviation that is not above 0; it cannot be used")
    _set(module, parameters, state)


def _set(module: nn.Module, parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
    if isinstance(module, Method) and (router := module.standardizing) is not None:
        router.ready = router.ready or any(value is router.mean for value in parameters.values())


def start_from(method: Method, directory: str, fingerprint: str) -> None:
    """Copy what a saved adapter and a method have in common: tensors of one name that mean the same.

    ``directory`` is ``method.init_adapter``, a finished run; ``fingerprint`` is that of the method's backbone. What the
    adapter does not have stays as it is.

    Raises:
        AdapterError: No such adapter, another backbone, nothing in common, or another shape. Nothing was set then.
    """
    where = f"method.init_adapter={directory}"
    adapter = read_adapter(Path(directory).expanduser())
    backbone = adapter.description.get("backbone")
    if not isinstance(backbone, dict) or backbone.get("fingerprint") != fingerprint:
        raise AdapterError(f"{where} was trained on other backbone weights; choose the model it was trained on")
    try:
        theirs = parse(adapter.method, adapter.options).transferable_groups()
    except ConfigError as error:
        raise AdapterError(f"{where}: its adapter.json is wrong: {error.problems[0]}") from error
    ours, parameters = method.options.transferable_groups(), saved_tensors(method)
    groups = {name: name.split(".")[0] for name in parameters if name in adapter.state}
    common = [name for name, group in groups.items() if group in ours and ours[group] == theirs.get(group)]
    if not common:
        raise AdapterError(
            f"{where} (method={adapter.method}: {', '.join(sorted(adapter.state)[:4])}) has nothing that this method "
            f"can start from: {', '.join(sorted(parameters)[:4])}; choose another adapter, or method.init=random"
        )
    for name in common:
        if adapter.state[name].shape != parameters[name].shape:
            shapes = f"{tuple(adapter.state[name].shape)}, this method {tuple(parameters[name].shape)}"
            raise AdapterError(f"{where}: its {name} has shape {shapes}; give both the same tokens, layers and routes")
    _set(method, {name: parameters[name] for name in common}, adapter.state)


def serialised(state: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    return save_bytes({name: value.detach().cpu().contiguous().clone() for name, value in state.items()})


def read_state(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, whose SHA-256 must be ``digest`` where given; AdapterError if missing or damaged."""
    try:
        blob = read_bytes(path, memory_bytes() // 2)  # its tensors are a copy
        state = load_bytes(blob)
    except (OSError, SafetensorError, ValueError) as error:
        raise AdapterError(f"{path} is missing or damaged ({error})") from error
    if digest is not None and hashlib.sha256(blob).hexdigest() != digest:
        raise AdapterError(f"{path} is damaged: its checksum is not that of {DESCRIPTION}; copy it again")
    return state
