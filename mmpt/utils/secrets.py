"""Keys and passwords of this user: recognised, so that they are never written or shown. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import netrc
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpt.utils.untrusted import one_line

# keys that say what they are, whoever's they are
_LOOKS = re.compile(r"\bhf_[A-Za-z0-9]{20,}|\bwandb_v[0-9]+_\w{20,}")
SHORTEST = 8  # a shorter value may be an ordinary word
_NAMES = re.compile(r"(API_?KEY|ACCESS_?KEY|TOKEN|SECRET|PASSWORD|PASSWD)$", re.I)


def credentials() -> dict[str, str]:
    """This user's secrets where the libraries look for them, by what holds each: a variable, or a file and host."""
    secrets = {name: value for name, value in os.environ.items() if _NAMES.search(name)} | dict(_of_netrc())
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        token = Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
        secrets["the hub's token file"] = token.read_text(encoding="utf-8").strip()
    return {name: value for name, value in secrets.items() if len(value) >= SHORTEST}


def holding_secrets(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Find secrets in plain data that are written to files: yields the dotted key, and what holds the secret."""
    secrets = credentials()
    waiting = [(key, values)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{inner}".lstrip("."), item) for inner, item in value.items()]
        elif isinstance(value, list):
            waiting += [(name, item) for item in value]
        elif isinstance(value, str):
            yield from ((name, holder) for holder, secret in secrets.items() if secret in value)
            if _LOOKS.search(value):
                yield name, "an access token"


def redact(text: str) -> str:
    """Put stars in place of every secret."""
    for secret in sorted(credentials().values(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _LOOKS.sub("***", text)


def error_line(error: object) -> str:
    """An error in one line that can be shown and written: no secrets, no characters that command a terminal."""
    return one_line(redact(str(error)))


def _of_netrc() -> Iterator[tuple[str, str]]:
    path = Path(os.environ.get("NETRC") or "~/.netrc")
    try:
        hosts = netrc.netrc(path.expanduser()).hosts
    except (OSError, RuntimeError, ValueError, netrc.NetrcParseError):
        return
    for host, (_, _, password) in hosts.items():
        if password:
            yield f"{path} ({host})", password
