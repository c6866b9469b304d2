"""Files of hub repositories, and every failure of a hub as one line. Imports no torch.

Transfers are huggingface_hub's: it caches, resumes replies that were cut, and waits where the hub asks for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmpt.errors import HubError, MmptError

COMMIT = re.compile("[0-9a-f]{40}")
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
TIMEOUT_S = 5.0
_BUSY = (429, 500, 502, 503, 504)
_STATUS = {
    401: "is refused (401): the token is wrong or has expired; set HF_TOKEN, or run: hf auth login",
    403: "is refused (403): the token has no right to that; set HF_TOKEN to one with write access",
    429: "is refused (429): too many requests; try again in some minutes, with HF_TOKEN the limits are higher",
}


def fetch(repo: str, file: str, *, repo_type: str, revision: str, most: int | None = None) -> Path:
    """Fetch one file of ``owner/name``, from the hub's cache if it is there at that commit.

    HubError: it has more than ``most`` bytes. Others are huggingface_hub's, for :func:`one_line_errors`.
    """
    from huggingface_hub import errors, hf_hub_download

    wanted: dict[str, Any] = {"repo_id": repo, "filename": file, "repo_type": repo_type, "revision": revision}
    if COMMIT.fullmatch(revision):  # a commit never changes, a branch may
        with suppress(errors.LocalEntryNotFoundError):
            return Path(hf_hub_download(**wanted, local_files_only=True))
    commit_of(repo, file, repo_type=repo_type, revision=revision, most=most)
    return Path(hf_hub_download(**wanted))


def commit_of(repo: str, file: str, *, repo_type: str, revision: str, most: int | None = None) -> str:
    """The commit that a revision of a repository with this file means; arguments and errors as of :func:`fetch`.

    Asked before a download, which tries an unreachable hub for half a minute. A busy hub is asked again.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repo, file, repo_type=repo_type, revision=revision)
    try:
        metadata = get_hf_file_metadata(url, timeout=TIMEOUT_S)
    except errors.HfHubHTTPError as error:
        if _status(error) not in _BUSY:
            raise
        metadata = get_hf_file_metadata(url, timeout=TIMEOUT_S, retry_on_errors=True)
    size = metadata.size or 0
    if most is not None and size > most:
        text = f"{size / 2**20:.0f} MiB, more than the {most / 2**20:.0f} that it may have"
        raise HubError(f"hub: {file} of {repo}@{revision} has {text}")
    return metadata.commit_hash or revision


@contextmanager
def one_line_errors(
    what: str, kind: type[MmptError], *, check: str, instead: str = "", verb: str = "fetched from"
) -> Iterator[None]:
    """Turn what huggingface_hub raises within the block into one line of a kind of error. Tokens are in none of them.

    ``what`` is fetched or pushed (``verb``); ``check`` is what to look at if it does not exist, ``instead`` what works
    without a hub.
    """
    from huggingface_hub import constants, errors

    try:
        yield
    except MmptError:
        raise
    except errors.HFValidationError as error:
        raise kind(f"hub: {what}: {str(error).splitlines()[0]}") from error
    except errors.HfHubHTTPError as error:
        raise kind(f"hub: {what} {_refusal(error, check)}") from error
    except Exception as error:  # the client raises its transport's own errors, which change with its versions
        text = f"hub: {what} cannot be {verb} {constants.ENDPOINT} ({type(error).__name__})"
        raise kind(f"{text}; {instead}" if instead else text) from error


def _refusal(error: Any, check: str) -> str:
    from huggingface_hub import errors

    status, name = _status(error), type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        return "needs an accepted licence and a token (HF_TOKEN)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"does not exist ({name}), or is private and HF_TOKEN gives no access; check {check}"
    if isinstance(error, errors.RevisionNotFoundError | errors.EntryNotFoundError):
        return f"does not exist ({name}); check {check}"
    return _STATUS.get(status or 0, f"failed: the hub answers {status} ({name}); try again later")


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)
