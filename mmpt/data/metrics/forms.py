"""Which texts are the same answer, and which are numbers. Imports no numpy."""

from __future__ import annotations

import math
from unicodedata import normalize as unicode_form

UNREADABLE = -1.0  # stands for a prediction that is not a number, as in T5's own code for STS-B

# Only what surrounds an answer is removed. Inside it, and in front of a number, a character carries meaning:
# not_entailment is not entailment, -5 is not 5, 3.5 is not 35.
_LEADING = " \t\"'`([{<“”‘’„«"
_TRAILING = " \t\"'`)]}>“”‘’»…。.,;:!?"


def normalise(text: str) -> str:
    """Remove differences that do not change an answer.

    These are the Unicode form (NFKC), case, runs of spaces, and punctuation and quotes around the answer.

    Args:
        text: A prediction or a target.
    """
    folded = " ".join(unicode_form("NFKC", unicode_form("NFKC", text).casefold()).split())
    return folded.lstrip(_LEADING).rstrip(_TRAILING) or folded


def nfc(text: object) -> str:
    """A text in Unicode's composed form, so that two spellings of one word are equal."""
    return unicode_form("NFC", str(text))


def number(text: str) -> float | None:
    """The finite number that a text is; None where it is not one."""
    try:
        value = float(normalise(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    return number(text) is not None
