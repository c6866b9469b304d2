"""The kinds of backbones, one file each: encoder-decoders, and encoders with a classification head."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmpt.models.adapted import AdaptedModel

CLASSES: dict[str, str] = {  # the module of a kind has the kind's name
    "seq2seq": "EncoderDecoder",
    "causal": "DecoderOnly",
    "encoder": "EncoderClassifier",
}


def class_of(kind: str) -> type[AdaptedModel]:
    """The class that runs backbones of a kind, a key of ``CLASSES``."""
    engine: type[AdaptedModel] = getattr(import_module(f"mmpt.models.kinds.{kind}"), CLASSES[kind])
    return engine
