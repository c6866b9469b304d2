"""Where an adapter is: a directory, or a repository of the hub, whose two files are fetched."""

from __future__ import annotations

from pathlib import Path

from mmpt.errors import AdapterError
from mmpt.models.adapter_files import DESCRIPTION, WEIGHTS
from mmpt.models.size import memory_bytes
from mmpt.utils.hub import COMMIT, REPOSITORY, commit_of, fetch, one_line_errors
from mmpt.utils.untrusted import LARGEST

MARK = "hub:"


def located(source: str | Path, revision: str | None = None) -> Path:
    """The directory of an adapter: on disk, or fetched from the hub.

    Args:
        source: A directory; ``hub:owner/name`` (``hub:owner/name@REVISION``); or ``owner/name``, where no such
            directory exists. A Path is always a directory.
        revision: A commit, branch or tag of the hub's repository.

    Raises:
        AdapterError: The name or revision is invalid, or the hub does not have it.
    """
    if isinstance(source, Path) or not (source.startswith(MARK) or _absent(source)):
        if revision is not None:
            raise AdapterError(
                f"{source} is a directory, which has no revision; leave revision out, or write {MARK}..."
            )
        return Path(source).expanduser()
    repo, _, stated = source.removeprefix(MARK).partition("@")
    if REPOSITORY.fullmatch(repo) is None:
        raise AdapterError(f"{source} names no repository of the hub; write {MARK}owner/name")
    if stated and revision is not None and stated != revision:
        raise AdapterError(f"{source}: revision={revision} says otherwise; give one of them")
    return _fetched(
        repo, stated or revision or "main", "" if source.startswith(MARK) else f"no directory {source}, and "
    )


def _absent(source: str) -> bool:
    """Whether a name could be a repository's, and is no path on this disk."""
    return REPOSITORY.fullmatch(source.partition("@")[0]) is not None and not Path(source).exists()


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
