"""Decoder-only models: the first pass reads the prompt, and passes that continue a cache carry what that one did.

The prompt is what comes before the first labelled token (labels that are not -100), or ``prompt_length`` tokens, or all
there is where neither is given, as in generation. The router never reads the answer.

Letters: B batch, T tokens, P tokens of a method's prompt, d model width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from mmpt.attention.inject import CACHE
from mmpt.attention.prefix import for_batch
from mmpt.data.collate import IGNORED
from mmpt.errors import DataError
from mmpt.models.hooks.base import Hooks
from mmpt.models.insertion import Insertion


class DecoderHooks(Hooks):
    """The base model's first pass reads the prompt."""

    def _install(self) -> None:
        base = self.model.get_decoder()  # which some models call past their base model
        self._answer: Tensor | None = None  # (B, T), True from the first labelled token on
        self._inserted: Insertion | None = None  # what this pass inserted, to be removed from its states
        self._handles += [
            base.register_forward_pre_hook(self._before_base, with_kwargs=True),
            base.register_forward_hook(self._after_base, always_call=True),
        ]

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        _, named = super()._before_model(module, args, kwargs)
        labels = named.get("labels")
        self._answer = None if labels is None else (labels != IGNORED).cumsum(dim=1) > 0
        return (), named

    def _before_base(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = self._named(module, args, kwargs)
        if not self._given:
            seen = 0 if (cache := named.get(CACHE)) is None else cache.get_seq_length()
            if seen == 0:
                named = self._prefill(named)
            else:
                self._recall(cache)
                if self.source.insertion is not None:
                    named = self._with_prompt(named, self.source.insertion, seen)
        self.injection.set(self.source.contribution.prefixes)
        return (), named

    def _prefill(self, named: dict[str, Any]) -> dict[str, Any]:
        embeddings, mask = self._embeddings(named)
        prompt = self._prompt(embeddings, mask)
        begin = self._padding_before(mask)
        rows = self.read(embeddings, prompt, begin, first=begin, text=prompt, padding_first=True)
        insertion = self._inserted = self.source.insertion
        if rows is embeddings:
            return named
        named |= {"input_ids": None, "inputs_embeds": rows}
        return self._with_prompt(named, insertion) if insertion is not None else named

    def _with_prompt(self, named: dict[str, Any], insertion: Insertion, seen: int = 0) -> dict[str, Any]:
        """Arguments with mask and positions for a prompt that stands in the rows, or in a cache of ``seen`` tokens."""
        given = named["input_ids"] if named.get("inputs_embeds") is None else named["inputs_embeds"]
        tokens = given.shape[1] - (0 if seen else insertion.prompt)
        mask, positions, lengths = named.get("attention_mask"), named.get("position_ids"), insertion.lengths
        if mask is None and lengths is not None and not seen:
            mask = given.new_ones((len(given), tokens), dtype=torch.long)
        if mask is not None:
            named["attention_mask"] = insertion.mask(_two(mask))
        if positions is None and lengths is not None:  # padding before a shorter prompt takes none
            first = seen - insertion.prompt if seen else 0
            positions = first + torch.arange(tokens, device=given.device).expand(len(given), tokens)
        if positions is not None and not seen:
            named["position_ids"] = insertion.positions(positions)
        elif positions is not None:
            before = insertion.prompt if lengths is None else for_batch(lengths, len(positions)).unsqueeze(1)
            named["position_ids"] = positions + before
        return named

    def _prompt(self, embeddings: Tensor, mask: Tensor | None) -> Tensor | None:
        """Which tokens (B, T) the router may read: those of the prompt."""
        length, answer = self._options.get("prompt_length"), self._answer
        mask = mask if mask is None or mask.dim() == 2 else None
        if length is not None:
            index = torch.arange(embeddings.shape[1], device=embeddings.device).expand(embeddings.shape[:2])
            count = torch.as_tensor(length, device=embeddings.device).reshape(-1, 1)
            count = count.repeat_interleave(len(embeddings) // len(count), dim=0)
            order = index if mask is None else mask.cumsum(dim=1) - 1  # counts from the first real token
            answer = order >= count
        reads = self.method is not None and self.method.reads_input
        if answer is None:
            if reads and self.model.training and not self._generating:
                raise DataError(
                    "while training, the router must know where the prompt ends; give labels (with the prompt's set to "
                    f"{IGNORED}) or prompt_length to the model"
                )
            return mask
        read = ~answer if mask is None else mask * ~answer
        if reads and not read.is_cuda and not read.any(dim=1).all():
            raise DataError(
                "the router reads the prompt, and a row has none: all tokens are labelled; set the prompt's labels to "
                f"{IGNORED}, or give prompt_length"
            )
        return read

    def _after_base(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        insertion, self._inserted = self._inserted, None
        if output is not None and not self._given:
            parts = output if isinstance(output, tuple) else output.values()
            for cache in (part for part in parts if isinstance(part, Cache)):
                self._remember(cache)
        if output is None or insertion is None:
            return output
        states = insertion.without(output[0])
        if isinstance(output, tuple):
            return (states, *output[1:])
        output.last_hidden_state = states
        return output

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate with what the prompt contributes; a method's prompt is put into the embeddings, as tokens."""
        cache = kwargs.get(CACHE)
        if self._given or (cache is not None and cache.get_seq_length() > 0):
            if not self._given:
                self._recall(cache)
            if self.source.insertion is not None:
                raise DataError(
                    "a method with a prompt cannot continue a filled cache; give the whole text, and no cache"
                )
            with self.given(self.source.contribution):
                return super()._generate(*args, **kwargs)
        self._answer = None
        ids: Any = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
        mask, embeddings = kwargs.get("attention_mask"), kwargs.get("inputs_embeds")
        if mask is None:
            mask = (
                self._real(ids) if embeddings is None else embeddings.new_ones(embeddings.shape[:2], dtype=torch.long)
            )
        named = self._prefill({"input_ids": ids, "inputs_embeds": embeddings, "attention_mask": mask})
        self._inserted = None
        with self.given(self.source.contribution):
            if (rows := named["inputs_embeds"]) is embeddings:
                return super()._generate(*args, **kwargs)
            if kwargs.get("max_new_tokens") is None:
                kwargs["max_new_tokens"] = self._new_tokens(kwargs, 0 if ids is None else ids.shape[1])
            kwargs = {name: value for name, value in kwargs.items() if name not in ("inputs", "input_ids")}
            kwargs |= {"inputs_embeds": rows, "attention_mask": named["attention_mask"]}
            return super()._generate(*([] if ids is None else [ids]), **kwargs)

    def _real(self, ids: Tensor) -> Tensor:
        """A mask (B, T) of ids: padding is what the configuration names, unless it ends texts too."""
        config = self.model.generation_config
        pad, end = config.pad_token_id, config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        return torch.ones_like(ids) if pad is None or pad in ends else (ids != pad).long()

    def _new_tokens(self, options: dict[str, Any], before: int) -> int:
        """How many tokens ``max_length`` leaves; transformers would count the prompt."""
        config = options.get("generation_config") or self.model.generation_config
        if (new := config.max_new_tokens) is not None:
            return int(new)
        longest = options.pop("max_length", None) or config.max_length or 20  # as transformers has it
        return max(int(longest) - before, 1)


def _two(mask: Tensor) -> Tensor:
    if mask.dim() != 2:
        raise DataError("a method with a prompt needs a mask of two dimensions (rows, tokens); give attention_mask so")
    return mask
