"""Starting values from the backbone itself: its embeddings, keys and values of sampled vocabulary or of a text.

Letters: P prefix or prompt tokens, L layers, H heads, k head width, d model width.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mmpt.errors import ConfigError
from mmpt.models.hooks.base import Hooks
from mmpt.models.parts import embed, word_embeddings

_SOURCES = ("key_value_states", "encoder_hidden_states")  # how attention modules call what cross attention reads


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text's tokens, without special ones, at least one; or a ``ConfigError``."""
    special = set(tokenizer.all_special_ids)
    ids = [index for index in tokenizer(text, add_special_tokens=False)["input_ids"] if index not in special]
    if not ids:
        raise ConfigError(f"method.init_text={text!r} has no piece that the backbone's vocabulary knows; change it")
    return ids


class ActivationProbe:
    """Runs a backbone on sampled vocabulary or a text, and gives its embeddings, keys and values."""

    def __init__(self, hooks: Hooks, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Take a model with hooks, and its tokenizer, which only a text needs."""
        self.hooks, self.model, self.tokenizer = hooks, hooks.model, tokenizer

    def sample(self, count: int) -> Tensor:
        """Draw ids (P,) of ordinary pieces, with repetition only where the vocabulary is too small."""
        if self.tokenizer is None:  # the model knows less of what is special
            config = self.model.config
            size = config.vocab_size
            special = {getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos")}
        else:
            size, special = len(self.tokenizer), set(self.tokenizer.all_special_ids)
        ordinary = torch.tensor([index for index in range(size) if index not in special])
        order = torch.randperm(len(ordinary)).repeat(count // len(ordinary) + 1)
        return ordinary[order[:count]]

    def text(self, text: str, count: int) -> Tensor:
        """The first ids (P,) of a text without special tokens, repeated where it has fewer; or a ``ConfigError``."""
        tokenizer = self.tokenizer
        if tokenizer is None:
            raise ConfigError("init=text needs the model's tokenizer; give mmpt.adapt(model, options, tokenizer=...)")
        ids = text_ids(tokenizer, text)
        return torch.tensor(ids).repeat(count // len(ids) + 1)[:count]

    def embeddings(self, ids: Tensor) -> Tensor:
        """Word embeddings (P, d), float32."""
        device = word_embeddings(self.model).weight.device
        return embed(self.model, ids.to(device)).detach().float()

    @torch.no_grad()
    def keys_values(self, ids: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Keys and values of ids (P,) by site, each (L, H, P, k), float32."""
        sites, architecture = self.hooks.injection.modules, self.hooks.injection.architecture
        read: dict[nn.Module, Tensor] = {}

        def record(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            source = next((kwargs[name] for name in _SOURCES if kwargs.get(name) is not None), None)
            states = args[0] if args else kwargs["hidden_states"]
            read[module] = (states if source is None else source)[0]  # (P, d)

        ids = ids.to(word_embeddings(self.model).weight.device).unsqueeze(0)
        network: Any = self.model.base_model
        more: dict[str, Any] = (
            {"decoder_input_ids": ids} if architecture.has_encoder else {}
        )  # source and target at once
        more |= {} if architecture.has_head else {"use_cache": False}
        with ExitStack() as hooks, self.hooks.using(None):
            for module in (module for modules in sites.values() for module in modules):
                hooks.enter_context(module.register_forward_pre_hook(record, with_kwargs=True))
            network(input_ids=ids, **more)
        pairs = {site: [architecture.keys_values(each, read[each]) for each in part] for site, part in sites.items()}
        keys, values = (
            {site: torch.stack([pair[index].to(ids.device) for pair in part]).float() for site, part in pairs.items()}
            for index in (0, 1)
        )
        return {site: (keys[site], values[site]) for site in pairs}
