"""A fingerprint of what a tokenizer does, whatever its files look like."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt.errors import AdapterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# cases, accents, digits, spaces, lines and rare signs: what normalisers, pre-tokenizers and merges disagree about
_PROBES = (
    "The quick brown fox jumps over the lazy dog, 12345.67 times; isn't it WONDERFUL?",
    "  Größe\u00a0naïve Ünïcödé ﬁne \u0130stanbul\n\tline two  ",
    "unbelievably hyper-parameterised e-mail@example.org 你好 мир 🙂",
)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over a tokenizer's pieces with their ids, its special tokens, and its ids of some texts, in hexadecimal.

    Saving a tokenizer again, or in another format, leaves it as it is.
    """
    content = {
        "pieces": tokenizer.get_vocab(),
        "special": [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id],
        "probes": [tokenizer(text)["input_ids"] for text in _PROBES],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def refuse_other_tokenizer(
    description: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, where: Path, origin: str
) -> None:
    """Compare a tokenizer with the one that an adapter was trained with.

    Args:
        description: The content of ``adapter.json``; older ones, and the library's, state no tokenizer.
        tokenizer: The backbone's.
        where: The adapter's name in error messages.
        origin: The backbone's name in error messages.

    Raises:
        AdapterError: It is another one.
    """
    stated = description.get("tokenizer")
    if stated is None or stated == (ours := tokenizer_fingerprint(tokenizer)):
        return
    raise AdapterError(
        f"{where} was trained with another tokenizer ({str(stated)[:12]}) than that of {origin} ({ours[:12]}), so its "
        "texts would be other ids; give the original with --model DIR, or accept it with --force (force=True)"
    )
