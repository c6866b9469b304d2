"""Save an adapter of a model, and load one onto a model: from a run's ``adapter/``, any folder, or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from torch import nn
from transformers import PreTrainedModel

from mmpt.attention.inject import OWN, running_attention
from mmpt.errors import AdapterError, MmptError, ModelError
from mmpt.methods import parse
from mmpt.models import adapter_files
from mmpt.models.adapt import attach
from mmpt.models.adapter_files import DESCRIPTION, WEIGHTS, Adapter, load_state, read_adapter
from mmpt.models.adapters import Adapters, adapters_of
from mmpt.models.fingerprint import has_weights
from mmpt.models.parts import ADAPTERS
from mmpt.utils.hub import COMMIT, REPOSITORY, commit_of, fetch, one_line_errors
from mmpt.utils.machine import memory_bytes
from mmpt.utils.untrusted import LARGEST, one_line

Model = TypeVar("Model", bound=PreTrainedModel)
MARK = "hub:"
_OFFLINE = "a directory works offline, and so does an adapter fetched before with revision=COMMIT"


def save_adapter(model: nn.Module, directory: str | Path, name: str | None = None) -> Path:
    """Write an adapter as safetensors and JSON. :func:`mmpt.load_adapter` and :func:`mmpt.load` read it.

    Args:
        model: An adapted model.
        directory: Created where it is missing; files of an adapter in it are replaced.
        name: The adapter; by default the active one.

    Returns:
        The directory.

    Raises:
        AdapterError: No such adapter.
        RunError: The files cannot be written.
    """
    adapters, path = adapters_of(model), Path(directory).expanduser()
    _, method = adapters.chosen(name)
    adapter_files.save_adapter(path, method, {"backbone": _backbone(adapters)})
    return path


def _backbone(adapters: Adapters) -> dict[str, Any]:
    """What is known of the model: where it came from, and a fingerprint of its weights."""
    from mmpt.bundled import MODEL_DIR

    model = adapters.model
    origin = str(model.name_or_path or "")
    local = Path(origin).expanduser().is_dir() if origin else False
    source = "bundled" if origin == str(MODEL_DIR) else "path" if local or not origin else "hub"
    return {
        "name": Path(origin).name or model.config.model_type,
        "source": source,
        "path": None if source == "bundled" or not origin else str(Path(origin).resolve()) if local else origin,
        "architecture": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": running_attention(model).removeprefix(OWN),
        "fingerprint": adapters.fingerprint(),
    }


def load_adapter(model: Model, directory: str | Path, name: str = "default", *, revision: str | None = None) -> Model:
    """Load a saved adapter onto a model, in place; it is then the active one.

    Args:
        model: The model that it was trained on, adapted already or not.
        directory: What :func:`mmpt.save_adapter` wrote, a run directory, or an adapter on the hub
            (``owner/name``, ``hub:owner/name``, ``hub:owner/name@REVISION``).
        name: The name of the adapter on this model; a model can have several.
        revision: Commit, branch or tag of an adapter on the hub.

    Returns:
        The same object.

    Raises:
        AdapterError: There is no intact adapter, it belongs to another backbone, or the name is taken.
        ModelError: The architecture or class of the model is not supported.
    """
    path = located(directory, revision)
    put_on(model, read_adapter(path), str(path), name)
    return model


def located(source: str | Path, revision: str | None = None) -> Path:
    """The directory of an adapter: on disk, or fetched from the hub.

    Args:
        source: A directory; ``hub:owner/name`` (``hub:owner/name@REVISION``); or ``owner/name``, where no such
            directory exists. A Path is always a directory.
        revision: A commit, branch or tag of the hub's repository.

    Raises:
        AdapterError: The name or revision is invalid, or the hub does not have it.
    """
    text = str(source)
    repo, _, stated = text.removeprefix(MARK).partition("@")
    is_name = REPOSITORY.fullmatch(repo) is not None
    if isinstance(source, Path) or not (text.startswith(MARK) or (is_name and not Path(source).exists())):
        if revision is not None:
            raise AdapterError(
                f"{source} is a directory, which has no revision; leave revision out, or write {MARK}..."
            )
        return Path(source).expanduser()
    if not is_name:
        raise AdapterError(f"{source} names no repository of the hub; write {MARK}owner/name")
    if stated and revision is not None and stated != revision:
        raise AdapterError(f"{source}: revision={revision} says otherwise; give one of them")
    revision = stated or revision or "main"
    what = f"{repo}@{revision}" if text.startswith(MARK) else f"no directory {source}, and {repo}@{revision}"
    with one_line_errors(what, AdapterError, check="the name and the revision", instead=_OFFLINE):
        if COMMIT.fullmatch(revision) is None:  # both files of one commit, whatever is pushed meanwhile
            revision = commit_of(repo, DESCRIPTION, repo_type="model", revision=revision)
        sizes = {DESCRIPTION: LARGEST, WEIGHTS: memory_bytes() // 2}
        paths = [fetch(repo, file, repo_type="model", revision=revision, most=most) for file, most in sizes.items()]
    return paths[0].parent


def put_on(model: PreTrainedModel, adapter: Adapter, where: str, name: str, **known: Any) -> Adapters:
    """Put an adapter that was read from ``where`` on a model; errors are those of :func:`load_adapter`.

    ``known`` is as of :func:`mmpt.models.adapt.attach`; with ``fingerprint``, the weights have been compared.
    """
    stated = adapter.description.get("backbone")
    fingerprint = stated.get("fingerprint") if isinstance(stated, dict) else None
    if "fingerprint" not in known and isinstance(model, PreTrainedModel) and not _has(model, fingerprint):
        raise AdapterError(
            f"{where} was trained on other backbone weights ({str(fingerprint)[:12]}) than this {type(model).__name__} "
            "has; load the model that it was trained on, in the same dtype"
        )
    most = sum(value.numel() for value in adapter.state.values())
    try:
        options = parse(adapter.method, adapter.options)
        adapters = attach(model, options, name, initialise=False, most=most, **known)
    except (AdapterError, ModelError):
        raise
    except (MmptError, RuntimeError, TypeError, ValueError, MemoryError, OverflowError) as error:
        raise AdapterError(f"{where}: adapter.json describes nothing that can be built ({one_line(error)})") from error
    try:
        load_state(adapters.get(name), adapter.state, where)
    except AdapterError:
        adapters.remove(name)
        raise
    return adapters


def _has(model: PreTrainedModel, fingerprint: object) -> bool:
    existing = getattr(model, ADAPTERS, None)
    return has_weights(model, fingerprint) if existing is None else existing.holds(fingerprint)
