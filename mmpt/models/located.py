"""Where an adapter is: a directory, or a repository of the hub, whose two files are fetched."""

from __future__ import annotations

from pathlib import Path

from mmpt.errors import AdapterError
from mmpt.models.adapter_files import DESCRIPTION, WEIGHTS
from mmpt.models.size import memory_bytes
from mmpt.utils.hub import COMMIT, REPOSITORY, commit_of, fetch, one_line_errors
from mmpt.utils.untrusted import LARGEST

MARK = "hub:"
_OFFLINE = "a directory works offline, and so does an adapter fetched before with revision=COMMIT"


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
