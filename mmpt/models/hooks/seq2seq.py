"""Encoder-decoders: the encoder's pass reads the source, and passes of the decoder carry what belongs to its output.

Letters: B batch, T source tokens, P prompt tokens, d model width.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from mmpt.attention.inject import CACHE
from mmpt.methods.base import LayerPrompts
from mmpt.models.hooks.base import Hooks, Source, mean_of
from mmpt.models.insertion import Insertion


class EncoderDecoderHooks(Hooks):
    """The encoder's pass reads the source, and the decoder's passes carry what belongs to its output."""

    def _install(self) -> None:
        encoder, decoder = self.model.get_encoder(), self.model.get_decoder()
        self._open = ExitStack()  # prompts of the encoder's layers, within a pass
        self._mask: Tensor | None = None
        self._handles += [
            encoder.register_forward_pre_hook(self._before_encoder, with_kwargs=True),
            encoder.register_forward_hook(self._after_encoder, always_call=True),
            decoder.register_forward_pre_hook(self._before_decoder, with_kwargs=True),
        ]

    def _before_encoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._given:
            self.injection.set(self.source.contribution.prefixes, ["encoder"])
            return None
        named = self._named(module, args, kwargs)
        embeddings, mask = self._embeddings(named)
        begin = self._padding_before(mask)
        rows, self._mask = self.read(embeddings, mask, begin, first=begin, text=mask), mask
        contribution, insertion = self.source.contribution, self.source.insertion
        if contribution.layer_prompts is not None and insertion is not None:
            text = embeddings.new_ones(embeddings.shape[:2]) if mask is None else mask
            self._put_prompts(contribution.layer_prompts, insertion, text)
        self.injection.set(contribution.prefixes, ["encoder"])
        if rows is embeddings:
            return (), named
        wide = None if mask is None else self.source.widened(mask, rows.shape[1])
        return (), {**named, "input_ids": None, "inputs_embeds": rows, "attention_mask": wide}

    def _put_prompts(self, prompts: LayerPrompts, insertion: Insertion, mask: Tensor) -> None:
        """Let every layer of the encoder have its own prompt where one is inserted; mask (B, T) of the text."""

        def swap(index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given = args[0] if args else kwargs["hidden_states"]
            text = insertion.without(given.to(mask.device))
            states = insertion.rows(text, prompts.at(index, text, mask).to(text)).to(given.device)
            return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

        for index, layer in enumerate(self.injection.layers["encoder"]):
            self._open.enter_context(layer.register_forward_pre_hook(partial(swap, index), with_kwargs=True))

    def _after_encoder(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._open.close()
        if output is None or self._given:
            return
        states, contribution = output[0], self.source.contribution
        if self.method is not None and self.method.options.reads == "encoder" and "adapter_names" not in self._options:
            contribution = self.method(mean_of(states, self._mask))
        elif contribution.layer_prompts is not None:
            contribution = contribution.layer_prompts.finish(contribution)
        self.source, self._mask = replace(self.source, contribution=contribution), None
        self._remember(states)

    def _before_decoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = self._named(module, args, kwargs)
        states = named.get("encoder_hidden_states")
        if not self._given:
            self._recall(states)
        source = self.source if self._given or self.method is not None or self._options else Source()
        prefixes = source.contribution.prefixes
        if getattr(named.get(CACHE), "is_compileable", False) and any(item.positioned for item in prefixes.values()):
            raise ValueError("method.layout=paper needs the dynamic cache: its positions count the tokens there are")
        self.injection.set(prefixes, ["decoder", "cross"])
        mask = named.get("encoder_attention_mask")
        if mask is None or states is None:
            return None
        return (), {**named, "encoder_attention_mask": source.widened(mask, states.shape[1])}

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        if not self._given and (given := kwargs.get("encoder_outputs")) is not None:
            self._recall(given[0])  # its copies for beams are unknown
        if kwargs.get(CACHE) is None and kwargs.get("use_cache", True):
            # that of transformers has as many layers as the encoder, whatever the decoder has
            own: DynamicCache | StaticCache = DynamicCache()
            if kwargs.pop("cache_implementation", None) == "static":
                if kwargs.get("max_new_tokens") is None:
                    raise ValueError("a static cache needs max_new_tokens, its size")
                config: Any = self.model.get_decoder().config
                own = StaticCache(config, max_cache_len=1 + kwargs["max_new_tokens"])
            kwargs[CACHE] = EncoderDecoderCache(own, DynamicCache())
        return super()._generate(*args, **kwargs)
