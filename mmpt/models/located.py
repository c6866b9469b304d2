"""Where an adapter is: a directory, or a repository of the hub, whose two files are fetched."""

from __future__ import annotations

from pathlib import Path

from mmpt.errors import AdapterError
from mmpt.models.adapter_files import DESCRIPTION, WEIGHTS
from mmpt.models.size import memory_bytes
from mmpt.utils.hub import COMMIT, REPOSITORY, commit_of, fetch, one_line_errors
from mmpt.utils.untrusted import LARGEST

MARK = "hub:"


def located(place: str | Path, revision: str | None = None) -> Path:
    """The directory of an adapter: on disk, or fetched from the hub.

    Args:
        place: A directory; ``hub:owner/name`` (``hub:owner/name@REVISION``); or ``owner/name``, where no such
            directory exists. A Path is always a directory.
        revision: A commit, branch or tag of the hub's repository.

    Raises:
        AdapterError: The name or revision is invalid, or the hub does not have it.
    """
    if isinstance(place, Path) or not (place.startswith(MARK) or _absent(place)):
        if revision is not None:
            raise AdapterError(f"{place} is a directory, which has no revision; leave revision out, or write {MARK}...")
        return Path(place).expanduser()
    repo, _, stated = place.removeprefix(MARK).partition("@")
    if REPOSITORY.fullmatch(repo) is None:
        raise AdapterError(f"{place} names no repository of the hub; write {MARK}owner/name")
    if stated and revision is not None and stated != revision:
        raise AdapterError(f"{place}: revision={revision} says otherwise; give one of them")
    return _fetched(repo, stated or revision or "main", "" if place.startswith(MARK) else f"no directory {place}, and ")


def _absent(place: str) -> bool:
    """Whether a name could be a repository's, and is no path on this disk."""
    return REPOSITORY.fullmatch(place.partition("@")[0]) is not None and not Path(place).exists()


def _fetched(repo: str, revision: str, before: str) -> Path:
    instead = "a directory works offline, and so does an adapter fetched before with revision=COMMIT"
    with one_line_errors(
        f"{before}{repo}@{revision}", AdapterError, check="the name and the revision", instead=instead
    ):
        if COMMIT.fullmatch(revision) is None:  # both files of one commit, whatever is pushed meanwhile
            revision = commit_of(repo, DESCRIPTION, repo_type="model", revision=revision)
        sizes = {DESCRIPTION: LARGEST, WEIGHTS: memory_bytes() // 2}
        paths = [fetch(repo, file, repo_type="model", revision=revision, most=most) for file, most in sizes.items()]
    return paths[0].parent
