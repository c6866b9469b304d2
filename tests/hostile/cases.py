"""Properties over generated cases: few and the same ones in the fast suite, many and new ones in the slow one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ran: dict[str, int] = {}  # cases by name of the property, told at the end of the session


def both(fast: int, slow: int) -> Any:
    """Run a test with a few cases, and with many in the slow suite."""
    many = pytest.param(slow, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])
    return pytest.mark.parametrize("cases", [pytest.param(fast, id="few"), many])


def check(cases: int, holds: Callable[..., None], *strategies: st.SearchStrategy[Any], shrink: bool = True) -> None:
    """Try a property on so many cases; few are the same ones every time, so that a change is judged by itself.

    Without ``shrink``, a case that fails is shown as it is: where one takes a second, to shrink it takes minutes.
    """
    name = holds.__qualname__.split(".")[0]

    def counted(*values: Any) -> None:
        ran[name] = ran.get(name, 0) + 1
        holds(*values)

    chosen = settings(
        max_examples=cases,
        derandomize=cases < 100,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[phase for phase in (Phase.explicit, Phase.generate, Phase.shrink) if shrink or phase != Phase.shrink],
    )
    chosen(given(st.tuples(*strategies))(lambda values: counted(*values)))()


ODD_TEXTS = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "\ud800",
        "\ufeff",
        "\x1b[2J\x1b]0;title\x07",
        "\u202e",
        "\u2028",
        "../../outside",
        "/etc/passwd",
        "${oc.env:HOME}",
        "</script><script>alert(1)</script>",
        "=cmd|' /C calc'!A0",
        "nan",
        "1e999",
        "a" * 5000,
    ]
)
TEXTS = st.one_of(ODD_TEXTS, st.text(st.characters(), max_size=12))
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 1e308, -0.0, 1e-320]),
    st.integers(),
    st.floats(),
)
VALUES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
JSON = st.recursive(
    VALUES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def as_json(value: Any) -> bytes:
    """JSON as a hostile writer makes it: NaN, and half of surrogate pairs as escapes."""
    return json.dumps(value).encode()


@st.composite
def spoilt_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with flipped bits, bytes cut out or put in, or cut short."""
    spoilt = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(spoilt) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "double"]))
        if kind == "flip" and spoilt:
            spoilt[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del spoilt[at:]
        elif kind == "insert":
            spoilt[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "remove":
            del spoilt[at : at + draw(st.integers(1, 64))]
        else:
            spoilt[at:at] = spoilt[at : at + draw(st.integers(1, 64))]
    return bytes(spoilt)


@st.composite
def spoilt_values(draw: st.DrawFn, content: Any) -> Any:
    """Nested values with something odd at a place, a key missing, or one too many."""
    if not isinstance(content, dict | list) or not content or draw(st.integers(0, 7)) == 0:
        return draw(JSON)
    copy: Any = dict(content) if isinstance(content, dict) else list(content)
    places = sorted(content) if isinstance(content, dict) else range(len(content))
    place: Any = draw(st.sampled_from(places))
    kind = draw(st.sampled_from(["inside", "inside", "inside", "missing", "more"]))
    if kind == "missing":
        del copy[place]
    elif kind == "more" and isinstance(copy, dict):
        copy[draw(TEXTS)] = draw(JSON)
    else:
        copy[place] = draw(spoilt_values(content[place]))
    return copy


def spoilt_json(content: Any) -> st.SearchStrategy[bytes]:
    """A JSON file whose values or bytes are spoilt, or that nests without end."""
    deep = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"[" * 5000 + b"]" * 5000])
    return st.one_of(spoilt_values(content).map(as_json), spoilt_bytes(as_json(content)), st.binary(max_size=40), deep)
