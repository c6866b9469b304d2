"""Which tokens end, start and pad a text: decided once, for training, ranking and generation of every kind of model.

Tokenizer, configuration and generation configuration may each lack one of these tokens, or name different ones.
:func:`settle` writes one decision into all three. Imports no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mmpt.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# what would make generation choose other tokens than the likeliest, which ranking goes by
_NEUTRAL: dict[str, Any] = {
    "forced_eos_token_id": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "bad_words_ids": None,
    "min_length": 0,
    "min_new_tokens": None,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}


def settle(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, where: str) -> None:
    """Make a tokenizer and a model agree, in place.

    A target ends with the tokenizer's end token, or else with the first at which the model stops generating; generation
    stops at either. Padding is what the network's configuration names, else the tokenizer's, else the end token: masks
    come from lengths, so it may be any token. A decoder starts with what both configurations state, else with padding,
    as T5's does.

    Args:
        tokenizer: The backbone's.
        model: The backbone.
        where: Its name in messages.

    Raises:
        ModelError: The tokenizer has ids beyond the embeddings, no end token is known, or the two configurations start
            the decoder differently.
    """
    embeddings: Any = model.get_input_embeddings()
    rows, config, generation = embeddings.num_embeddings, model.config, getattr(model, "generation_config", None)
    known = set(tokenizer.get_vocab().values())
    if known and max(known) >= rows:
        raise ModelError(f"{where}: the tokenizer has ids up to {max(known)}, the embeddings {rows} rows")
    stated = [token for part in (generation, config) for token in _ids(part, "eos_token_id") if token in known]
    own = tokenizer.eos_token_id
    if own == tokenizer.unk_token_id and tokenizer.eos_token != tokenizer.unk_token:
        own = None  # its end token is missing from the vocabulary
    closing, content = (tokenizer("a", add_special_tokens=added, verbose=False)["input_ids"] for added in (True, False))
    if closing != content and closing[-1] in stated:  # what it adds to a text ends that text
        own = closing[-1]
    ends = list(dict.fromkeys([*([] if own is None else [own]), *stated]))
    pads = (config, tokenizer, generation)
    pad = next((token for part in pads for token in _ids(part, "pad_token_id") if token in known), None)
    pad = next(iter(ends), 0) if pad is None else pad
    if tokenizer.pad_token_id != pad:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    if generation is None:  # a classification head writes no text
        return
    if not ends:
        raise ModelError(
            f"{where}: neither the tokenizer nor the configuration names a token that ends a text; set eos_token in "
            "tokenizer_config.json, a token of its vocabulary"
        )
    if tokenizer.eos_token_id != ends[0]:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    generation.eos_token_id, generation.pad_token_id = ends if len(ends) > 1 else ends[0], pad
    forced = generation.forced_bos_token_id
    if forced is not None and tokenizer(text_target="a", verbose=False)["input_ids"][:1] != [forced]:
        generation.forced_bos_token_id = None  # no target begins with it
    generation.update(**_NEUTRAL)
    if config.is_encoder_decoder:
        start = _start(generation, config, where, pad)
        if not 0 <= start < rows:
            raise ModelError(f"{where}: decoder_start_token_id={start} is beyond the embeddings' {rows} rows")
        config.pad_token_id = pad
        config.decoder_start_token_id = generation.decoder_start_token_id = start


def answers(tokenizer: PreTrainedTokenizerBase, model: Any, ids: Tensor) -> list[str]:
    """The texts of generated ids, up to the first token that ends one.

    Args:
        tokenizer: After :func:`settle`, as the model.
        model: What generated them.
        ids: (B, U); of an encoder-decoder, with the start token.
    """
    ends = set(_ids(model.generation_config, "eos_token_id"))
    opening = set(tokenizer("", verbose=False)["input_ids"])  # what it puts before a target
    rows = []
    for row in ids[:, int(model.config.is_encoder_decoder) :].tolist():
        text = list(itertools.takewhile(lambda token: token not in ends, row))
        rows.append(text[1:] if text[:1] and text[0] in opening else text)
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def inner_end(model: Any, ids: Sequence[int]) -> bool:
    """Whether generation would stop inside of a target."""
    return not set(_ids(getattr(model, "generation_config", None), "eos_token_id")).isdisjoint(ids[:-1])


def _start(generation: Any, config: Any, where: str, default: int) -> int:
    """The token that a decoder starts with."""
    stated = {token for part in (generation, config) for token in _ids(part, "decoder_start_token_id")}
    if len(stated) > 1:
        raise ModelError(
            f"{where}: config.json and generation_config.json start the decoder with different tokens "
            f"({', '.join(map(str, sorted(stated)))}); give both the same decoder_start_token_id"
        )
    return next(iter(stated), default)


def _ids(part: Any, name: str) -> list[int]:
    """The ids that a tokenizer or a configuration states: none, one or several."""
    value = getattr(part, name, None)
    if value is None:
        return []
    return [int(token) for token in value] if isinstance(value, Iterable) else [int(value)]
