"""A fingerprint of what a tokenizer does, whatever its files look like."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

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
