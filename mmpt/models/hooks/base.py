"""Forward hooks that compute what an adapter adds to a pass, and put it in: the one way into a model.

``model(**batch)`` and ``model.generate(...)`` stay transformers' own. The hooks read the source from the arguments of
the network, let the active method contribute to it, insert prompts, and let attention carry the prefixes.

- Encoder-decoders: the encoder's pass reads the source. What it contributed belongs to the encoder's output, so a
  later pass of the decoder over that output carries it again.
- Decoder-only models: the first pass reads the prompt, which is what comes before the first label, or
  ``prompt_length`` tokens, or all there is. Passes that continue a cache carry what the first one did.
- Encoders with a classification head: each pass reads its source.

Letters: B batch, T source tokens, P prompt tokens, d model width.
"""

from __future__ import annotations

import inspect
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmpt.attention.inject import Injection
from mmpt.attention.prefix import shift_of
from mmpt.data.collate import IGNORED
from mmpt.methods.base import Contribution, Method, mean_embedding
from mmpt.models.devices import dispatched
from mmpt.models.gradient_checkpointing import checkpoint_layers
from mmpt.models.insertion import Insertion, insert
from mmpt.models.partial_forward import below
from mmpt.models.parts import embed, refuse_positions, word_embeddings
from mmpt.models.stacking import stack
from mmpt.utils.weak import Weak

NOTHING = Contribution()


@dataclass(frozen=True)
class Source:
    """What a pass read."""

    contribution: Contribution = NOTHING  # what the method adds
    insertion: Insertion | None = None  # where its prompt stands; None without one

    def __deepcopy__(self, memo: dict[int, Any]) -> Source:
        """Nothing: a copy of the model is in no pass, and tensors of a pass that have a graph cannot be copied."""
        return Source()

    def widened(self, mask: Tensor, width: int) -> Tensor:
        """A mask (B, T) of the source for N = P+T states, where it is not as wide already."""
        if self.insertion is None or mask.dim() != 2 or mask.shape[1] + self.insertion.prompt != width:
            return mask
        return self.insertion.mask(mask)


class Hooks(ABC):
    """The hooks of one model, whatever the number of its adapters."""

    def __init__(self, model: PreTrainedModel, injection: Injection, methods: Mapping[str, Method]) -> None:
        """Install the hooks on a model whose attention can carry prefixes."""
        self.injection = injection
        self.methods = methods  # of all adapters, by name, from which rows may choose
        self._model = Weak(model)  # it holds the hooks, and is to be freed as soon as nobody uses it
        self.method: Method | None = None  # the active adapter's; None: nothing is added
        self.source = Source()  # what the last pass read
        self._read: list[tuple[weakref.ref[Any], Source]] = []  # what belongs to an output, while that lives
        self._given = False  # whether passes carry ``source`` and read nothing
        self._options: dict[str, Any] = {}  # adapter_names and prompt_length of this pass
        self._generating = False
        self._labelled = False  # whether this pass has labels, so that its output has a loss
        self._share: Tensor | float = 1.0  # of this batch among those that the loss is a mean over
        self._checkpointing = False
        self._first_layers = [layers[0] for layers in injection.layers.values()]
        self._handles = [
            model.register_forward_pre_hook(self._before_model, with_kwargs=True),
            model.register_forward_hook(self._after_model, always_call=True),
        ]
        if dispatched(model) and not injection.architecture.has_head:  # of those, the model itself is called
            stack: Any = model.get_encoder() if injection.architecture.has_encoder else model.get_decoder()
            home = word_embeddings(model).weight.device  # the last layer may lie on another one
            self._handles.append(stack.register_forward_hook(lambda *given: send_to_device(given[-1], home)))
        self._install()
        object.__setattr__(model, "generate", self.generate)

    @property
    def model(self) -> PreTrainedModel:
        """The model that has the hooks."""
        return self._model()

    @abstractmethod
    def _install(self) -> None:
        """Add the hooks of this kind of model to ``_handles``."""

    def remove(self) -> None:
        """Leave the model without a trace."""
        for handle in self._handles:
            handle.remove()
        checkpoint_layers(self.injection, False)
        self.injection.remove()
        self.model.__dict__.pop("generate", None)

    @contextmanager
    def using(self, method: Method | None, adapter_names: Sequence[str] | None = None) -> Iterator[None]:
        """Let passes within the block be those of a method, or of each row's own adapter; None: nothing is added."""
        before, self.method = self.method, method
        self._options = {} if adapter_names is None else {"adapter_names": adapter_names}
        try:
            yield
        finally:
            self.method, self._options = before, {}
            self.injection.set({})

    @contextmanager
    def given(self, contribution: Contribution) -> Iterator[None]:
        """Let passes within the block carry what was contributed before; they read no source, and insert no prompt."""
        before = self.source, self._given
        self.source, self._given = Source(contribution), True
        try:
            yield
        finally:
            self.source, self._given = before
            self.injection.set({})

    def read(
        self,
        embeddings: Tensor,
        mask: Tensor | None,
        at: int | Tensor = 0,
        types: Tensor | None = None,
        **where: Any,
    ) -> Tensor:
        """Let the active method, or each row's own, contribute to this pass's source, and insert its prompt.

        Args:
            embeddings: Of the source's words (B, T, d).
            mask: (B, T), what a router may read; None: all.
            at: How many tokens stand before the prompt, one number or (B,).
            types: Which text of a pair each token is of (B, T), of networks that read it.
            where: As of :func:`mmpt.models.insertion.insert`.

        Returns:
            (B, P+T, d); :attr:`source` says what was contributed.
        """
        names = self._options.get("adapter_names")
        if names is not None:
            contribution = stack(self.methods, names, embeddings, mask, self.injection.shapes)
        elif self.method is None or self.method.options.reads == "encoder":  # which has not run yet
            contribution = NOTHING
        elif self.method.options.reads == "layer_below":
            contribution = self.method(self._mean_below(self.method, embeddings, mask, types))
        else:
            contribution = self.method(mean_of(embeddings, mask) if self.method.reads_input else None)
        rows, insertion = insert(contribution, embeddings, at, **where)
        refuse_positions(self.model, rows.shape[1] + shift_of(contribution.prefixes))
        self.source = Source(contribution, insertion)
        return rows

    def _remember(self, output: object) -> None:
        """Let what was read last belong to an output that later passes continue from: states, or a cache."""
        others = [(known(), known, source) for known, source in self._read]
        self._read = [(known, source) for one, known, source in others if one is not None and one is not output]
        self._read.append((weakref.ref(output), self.source))

    def _recall(self, output: object) -> None:
        """Let the source be that of an output; where it is unknown, such as a copy for beams, the last one stays."""
        self.source = next((source for known, source in self._read if known() is output), self.source)

    def _mean_below(self, method: Method, embeddings: Tensor, mask: Tensor | None, types: Tensor | None) -> Tensor:
        """Mean (B, d) over what a mask (B, T) has of the states that enter the first layer that a method changes."""
        count = method.cacheable_layers.count
        assert count, "options of methods that read the layer below refuse to change every layer"
        mask = embeddings.new_ones(embeddings.shape[:2]).long() if mask is None else mask.long()
        order = (mask == 0).long().argsort(dim=1, stable=True)  # padding last: positions are the text's own
        rows = embeddings.gather(1, order.unsqueeze(-1).expand_as(embeddings))
        inputs: dict[str, Any] = {"inputs_embeds": rows, "attention_mask": mask.gather(1, order)}
        if types is not None:
            inputs["token_type_ids"] = types.gather(1, order)
        if self.injection.architecture.decoder_only:
            inputs["use_cache"] = False
        self.injection.set({})
        with torch.no_grad(), self.given(NOTHING):
            return mean_of(below(self.model, method.shape.first_site, count, inputs), inputs["attention_mask"])

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        wanted = any(getattr(layer, "gradient_checkpointing", False) for layer in self._first_layers)
        if wanted != self._checkpointing:
            checkpoint_layers(self.injection, wanted)
            self._checkpointing = wanted
        named = self._named(module, args, kwargs)
        labels, items = named.get("labels"), named.get("num_items_in_batch")  # which transformers' Trainer accumulates
        self._labelled = labels is not None
        self._share = 1.0 if labels is None or items is None else (labels != IGNORED).sum() / items
        for name in ("adapter_names", "prompt_length"):
            if (value := named.pop(name, None)) is not None:
                self._options[name] = value
        return (), named

    def _named(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments by name."""
        if not args:
            return dict(kwargs)
        names = list(inspect.signature(type(module).forward).parameters)[1:]
        return {**dict(zip(names, args, strict=False)), **kwargs}

    def _after_model(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if self._generating:
            return output
        self._options = {}
        self.injection.set({})
        auxiliary = self.source.contribution.auxiliary_loss
        if output is None or auxiliary is None or not self._labelled or self._given:
            return output
        if isinstance(output, tuple):
            return (output[0] + auxiliary * self._share, *output[1:])
        output.loss = output.loss + auxiliary * self._share
        return output

    @staticmethod
    def _padding_before(mask: Tensor | None) -> int | Tensor:
        """How many tokens of padding stand before each row's text, (B,); 0 without a mask (B, T)."""
        if mask is None or mask.dim() != 2:
            return 0
        return (mask.cumsum(dim=1) == 0).sum(dim=1) % mask.shape[1]

    def _embeddings(self, named: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Word embeddings (B, T, d) and mask (B, T) of the arguments of a network."""
        given = named.get("inputs_embeds")
        return embed(self.model, named["input_ids"]) if given is None else given, named.get("attention_mask")

    def generate(self, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Generate with the active adapter; see ``transformers.GenerationMixin.generate``.

        ``adapter_names`` names an adapter for each row, instead of the active one. Decoder-only models take
        ``prompt_length`` too.
        """
        if (cache := kwargs.get("cache_implementation")) not in (None, "dynamic", "static"):
            raise ValueError(f"cache_implementation={cache} is not supported with adapters; choose dynamic or static")
        if cache == "dynamic":
            del kwargs["cache_implementation"]
        options = {"adapter_names": adapter_names, "prompt_length": kwargs.pop("prompt_length", None)}
        self._options = {name: value for name, value in options.items() if value is not None}
        generating, self._generating = self._generating, True
        try:
            return self._generate(*args, **kwargs)
        finally:
            self._generating, self._options = generating, {}
            self.injection.set({})

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = type(self.model)
        return own.generate(self.model, *args, **kwargs)


def mean_of(states: Tensor, mask: Tensor | None) -> Tensor:
    """Mean (B, d) of states (B, T, d) over what a mask (B, T) has, or over all."""
    return mean_embedding(states, states.new_ones(states.shape[:2]) if mask is None else mask)
