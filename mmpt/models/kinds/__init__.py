"""The engine of each kind of backbone, one file each."""

from __future__ import annotations

from mmpt.attention.architectures import Kind
from mmpt.models.adapted import AdaptedModel
from mmpt.models.kinds.causal import DecoderOnly
from mmpt.models.kinds.encoder import EncoderClassifier
from mmpt.models.kinds.seq2seq import EncoderDecoder

ENGINES: dict[Kind, type[AdaptedModel]] = {
    "seq2seq": EncoderDecoder,
    "causal": DecoderOnly,
    "encoder": EncoderClassifier,
}
