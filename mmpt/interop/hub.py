"""Adapters on the hub: push one with its card, or fetch one. Nothing but an adapter's own two files is ever read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mmpt.errors import AdapterError, HubError, RunError
from mmpt.interop.card import card
from mmpt.models.adapter_files import (
    DESCRIPTION,
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    WEIGHTS,
    Adapter,
    adapter_directory,
    peft_base,
    read_adapter,
    read_state,
)
from mmpt.models.saving import save_adapter
from mmpt.report.groups import Row, group
from mmpt.report.load import load
from mmpt.report.run import Run
from mmpt.utils.files import dumps, link_outside, read_json
from mmpt.utils.hub import REPOSITORY, one_line_errors


def push(
    source: nn.Module | str | Path,
    repo: str,
    *,
    name: str | None = None,
    private: bool = False,
    revision: str | None = None,
    license: str | None = None,
    backbone: str | None = None,
    runs: Sequence[Path] = (),
    keep_card: bool = False,
) -> str:
    """Push an adapter in one commit; the repository is created where it is missing.

    Args:
        source: An adapted model; or the directory of a finished run or an adapter.
        repo: ``owner/name``.
        name: Of a model's adapters; by default the active one.
        private: Create the repository as a private one.
        revision: A branch that exists; None: the main one.
        license: The card's license field.
        backbone: The hub id of the backbone (``owner/name`` or ``owner/name@COMMIT``), where that was a directory.
        runs: Where to look for runs that differ in the seed alone, for the card's mean and deviation.
        keep_card: Leave the README.md of the repository as it is.

    Returns:
        The commit's address.

    Raises:
        AdapterError: There is no intact adapter.
        HubError: The name is invalid, or the hub refuses or is not reached.
        RunError: A directory of ``runs`` holds no run.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if REPOSITORY.fullmatch(repo) is None:
        raise HubError(f"{repo!r} is no name of a repository; write owner/name")
    more: dict[str, Any] = {"license": license, "backbone": backbone, "runs": runs}
    if isinstance(source, nn.Module):
        with tempfile.TemporaryDirectory() as folder:
            files = contents(save_adapter(source, folder, name), repo, **more)
    else:
        files = contents(Path(source), repo, **more)
    if keep_card:
        del files["README.md"]
    with one_line_errors(repo, HubError, check="the name, and that HF_TOKEN may write there", verb="pushed to"):
        api = HfApi()
        api.create_repo(repo, private=True if private else None, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        message = f"Adapter of {json.loads(files[DESCRIPTION])['method']['name']}"
        info = api.create_commit(repo, operations, commit_message=message, revision=revision)
    return str(info.commit_url)


def contents(
    directory: Path, repo: str, *, license: str | None = None, backbone: str | None = None, runs: Sequence[Path] = ()
) -> dict[str, bytes]:
    """The files of the repository, by name; arguments and errors as of :func:`push`."""
    if (link := link_outside(directory)) is not None:
        raise HubError(f"{link} is a symbolic link out of {directory}, whose files alone are pushed; make it a copy")
    adapter, place = read_adapter(directory), adapter_directory(directory)
    description = _public(adapter, backbone)
    run, row = _results(place, runs)
    files = {
        DESCRIPTION: (dumps(description, indent=2) + "\n").encode(),
        WEIGHTS: (place / WEIGHTS).read_bytes(),
        "README.md": card(repo, description, run=run, row=row, license=license).encode(),
    }
    if (place / PEFT_CONFIG).is_file() and (place / PEFT_WEIGHTS).is_file():
        read_state(place / PEFT_WEIGHTS)  # tensors, and nothing else
        stated = {**read_json(place / PEFT_CONFIG), **peft_base(description["backbone"])}
        files[PEFT_CONFIG] = (dumps(stated, indent=2) + "\n").encode()
        files[PEFT_WEIGHTS] = (place / PEFT_WEIGHTS).read_bytes()
    return files


def _public(adapter: Adapter, backbone: str | None) -> dict[str, Any]:
    """The content of adapter.json without directories of this machine."""
    description = dict(adapter.description)
    if not all(isinstance(description.get(key, {}), Mapping) for key in ("backbone", "task")):
        raise AdapterError("the backbone or task of adapter.json is no mapping; use an adapter that mmpt wrote")
    stated = dict(description.get("backbone", {}))
    if backbone is not None:
        name, _, revision = backbone.partition("@")
        if REPOSITORY.fullmatch(name) is None:
            raise HubError(f"{backbone!r} is no hub id of a backbone; write owner/name or owner/name@COMMIT")
        stated |= {"source": "hub", "path": name, "revision": revision or None}
    elif stated.get("source") == "path" and stated.get("path"):
        stated["path"] = Path(str(stated["path"])).name
    return {**description, "backbone": stated}


def _results(place: Path, runs: Sequence[Path]) -> tuple[Run | None, Row | None]:
    """The run whose adapter this is, and its row."""
    own = place.parent
    found = load([own]).runs if (own / "status.json").is_file() else []
    run = next((one for one in found if one.status == "done"), None)
    if run is None or not runs:
        return run, None
    loaded = load(runs)
    if loaded.problems:
        raise RunError("; ".join(loaded.problems))
    for row in group(loaded.runs):
        if any(other.fingerprint == run.fingerprint for other in row.runs):
            return run, row
    raise RunError(f"{', '.join(map(str, runs))}: the run {own} is not among them, so its other seeds are not known")
