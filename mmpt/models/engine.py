"""The engine of an adapted model, of the class for its kind (``mmpt.models.kinds``)."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from mmpt.attention.architectures import Kind, architecture_of
from mmpt.methods.options import MethodOptions
from mmpt.models.adapt import attach
from mmpt.models.adapted import AdaptedModel
from mmpt.models.backbone import Backbone
from mmpt.models.kinds.causal import DecoderOnly
from mmpt.models.kinds.encoder import EncoderClassifier
from mmpt.models.kinds.seq2seq import EncoderDecoder
from mmpt.models.parts import ADAPTERS

ENGINES: dict[Kind, type[AdaptedModel]] = {
    "seq2seq": EncoderDecoder,
    "causal": DecoderOnly,
    "encoder": EncoderClassifier,
}


def engine_of(model: PreTrainedModel, name: str = "default", **more: Any) -> AdaptedModel:
    """The engine of one adapter of a model; ``more`` as of :class:`mmpt.models.adapted.AdaptedModel`."""
    return ENGINES[architecture_of(model.config.model_type).kind](model, name, **more)


def build_engine(
    backbone: Backbone, options: MethodOptions, *, name: str | None = None, dropout: bool = False, **more: Any
) -> AdaptedModel:
    """Adapt a backbone, by default under a name that is free, and create its engine.

    Arguments and errors are those of :func:`mmpt.models.adapt.attach` and :class:`mmpt.models.adapted.AdaptedModel`.
    """
    adapters = getattr(backbone.model, ADAPTERS, None)
    name = name or ("default" if adapters is None else f"adapter{len(adapters.methods)}")
    known = {"tokenizer": backbone.tokenizer, "fingerprint": backbone.fingerprint, "fresh": backbone.fresh}
    attach(backbone.model, options, name, **{**known, **more})
    return engine_of(backbone.model, name, dropout=dropout, cross_attention=backbone.cross_attention)
