"""What an adapter adds to a model's passes, one file for each kind of model."""

from __future__ import annotations

from mmpt.attention.architectures import Kind
from mmpt.models.hooks.base import Hooks, Source
from mmpt.models.hooks.causal import DecoderHooks
from mmpt.models.hooks.encoder import EncoderHooks
from mmpt.models.hooks.seq2seq import EncoderDecoderHooks

__all__ = ["HOOKS", "Hooks", "Source"]

HOOKS: dict[Kind, type[Hooks]] = {"seq2seq": EncoderDecoderHooks, "causal": DecoderHooks, "encoder": EncoderHooks}
