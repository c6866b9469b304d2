"""The adapters of one model: registered in it by name, one of them active.

``model.mmpt_adapters`` holds their parameters, so that ``model.parameters()``, ``state_dict``, optimizers, Trainer and
DDP see them. What an adapter trains of the backbone itself (LoRA's matrices, a head, all of it) lies where it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from torch import nn
from transformers import PreTrainedModel

from mmpt.attention.architectures import Kind, architecture_of
from mmpt.attention.inject import Injection, set_attention, switch_attention
from mmpt.errors import AdapterError, ConfigError, nearest
from mmpt.methods import create, method_class
from mmpt.methods.base import BackboneShape, Method
from mmpt.methods.options import MethodOptions
from mmpt.models.backbone import refuse_class
from mmpt.models.devices import dispatched
from mmpt.models.fingerprint import has_weights, weights_fingerprint
from mmpt.models.head import Head
from mmpt.models.hooks.base import Hooks
from mmpt.models.hooks.causal import DecoderHooks
from mmpt.models.hooks.encoder import EncoderHooks
from mmpt.models.hooks.seq2seq import EncoderDecoderHooks
from mmpt.models.parts import ADAPTERS, word_embeddings
from mmpt.models.quantization import differentiable

NAME = re.compile(r"[A-Za-z0-9_-]+")
HOOKS: dict[Kind, type[Hooks]] = {"seq2seq": EncoderDecoderHooks, "causal": DecoderHooks, "encoder": EncoderHooks}


class Adapters(nn.Module):
    """All adapters of a model, and its hooks. Each is a submodule under its name."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Freeze a model, switch its attention, install the hooks; a ``ModelError`` says that it is not supported."""
        super().__init__()
        architecture = architecture_of(model.config.model_type)
        refuse_class(model)
        self.required = {name: value.requires_grad for name, value in model.named_parameters()}
        self.attention = switch_attention(model)
        self.methods: dict[str, Method] = {}
        self.active: str | None = None
        self.backbone_dropout = True
        model.requires_grad_(False)
        differentiable(model)
        self.hooks = HOOKS[architecture.kind](model, Injection(model), self.methods)
        self.head = Head(model)
        self._fingerprints: list[str] = []
        model.add_module(ADAPTERS, self)

    @property
    def model(self) -> PreTrainedModel:
        """The model that these are adapters of."""
        return self.hooks.model

    def add(self, name: str, options: MethodOptions, *, most: int | None = None, fresh: Sequence[str] = ()) -> Method:
        """Create an adapter and make it the active one, with starting values as they are drawn.

        Arguments and errors are those of :func:`mmpt.models.adapt.attach`.
        """
        self._refuse(name, options)
        config, words = self.model.config, word_embeddings(self.model)
        shape = BackboneShape(words.embedding_dim, self.hooks.injection.shapes, config.model_type, config.hidden_size)
        method = create(options, shape, most).to(words.weight.device)
        if head := self.head.new(name, fresh):
            method.attach_head(head)
        if method.options.trains_all:
            self.fingerprint()  # while the weights are what they were
        self.activate(None)
        try:
            self.head.use(name)  # a method that changes layers leaves what is trained already alone
            method.attach(self.model, name)
        except BaseException:
            self.head.use(None)
            self.head.own.pop(name, None)
            raise
        self.methods[name] = method
        self.add_module(name, method)
        method.train(self.model.training)
        self.activate(name)
        return method

    def _refuse(self, name: str, options: MethodOptions) -> None:
        if name in self.methods:
            raise AdapterError(
                f"the model has an adapter {name!r} already; give another name, or remove it first with "
                f"mmpt.remove_adapter(model, {name!r})"
            )
        if NAME.fullmatch(name) is None or hasattr(self, name):
            raise AdapterError(f"{name!r} cannot be an adapter's name; give letters, digits, - and _, such as 'second'")
        changes = method_class(options.name).changes_backbone()
        if changes and dispatched(self.model) and any(value.is_meta for value in self.model.parameters()):
            raise ConfigError(
                f"method={options.name} changes the model's own layers, and weights of some lie in memory or on disk "
                "until they are used; load the model without device_map"
            )
        for method in self.methods.values():
            other = changes and method.changes_backbone() and method.options.name != options.name
            if method.options.trains_all or other:
                raise AdapterError(
                    f"method={method.options.name} of another adapter changes the model's own layers; remove it first, "
                    "or load the model a second time"
                )

    def get(self, name: str) -> Method:
        """An adapter's method; an ``AdapterError`` says that there is none."""
        if name not in self.methods:
            known = ", ".join(map(repr, self.methods))
            raise AdapterError(f"no adapter {name!r}; this model has {known}{nearest(name, self.methods)}")
        return self.methods[name]

    def chosen(self, name: str | None) -> tuple[str, Method]:
        """A named adapter, or the active one: its name and its method; an ``AdapterError`` says that there is none."""
        name = name or self.active
        if name is None:
            raise AdapterError(f"no adapter is active; name one of {', '.join(map(repr, self.methods))}")
        return name, self.get(name)

    def activate(self, name: str | None) -> None:
        """Let one adapter be active and trainable, or none."""
        if name == self.active:
            return
        chosen = None if name is None else self.get(name)
        if self.active is not None:
            before = self.methods[self.active]
            before.activate(False)
            before.requires_grad_(False)
        self.head.use(name)
        if chosen is not None:
            chosen.activate(True)
            chosen.requires_grad_(True)
        self.active, self.hooks.method = name, chosen

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Let no adapter be active within the block."""
        name = self.active
        flags = {} if name is None else {value: value.requires_grad for value in self.methods[name].parameters()}
        self.activate(None)
        try:
            yield
        finally:
            self.activate(name)
            for value, flag in flags.items():
                value.requires_grad_(flag)

    def remove(self, name: str, *, merge: bool = False) -> None:
        """Remove an adapter, or ``merge`` it into the backbone; with the last one, the model is as it was before.

        Raises:
            AdapterError: No such adapter.
            ConfigError: The method cannot be removed or merged.
        """
        method = self.get(name)
        if merge:
            self.activate(name)
            method.merge(self.model)
            self.head.merge(name)
        else:
            method.detach(self.model)
        if self.active == name:
            self.active, self.hooks.method = None, None
            self.head.use(None)
        del self.methods[name]
        self.head.own.pop(name, None)
        delattr(self, name)
        self.leave_if_empty()

    def leave_if_empty(self) -> None:
        """Without any adapter, remove the hooks, and restore what was changed."""
        if self.methods:
            return
        model = self.model
        self.hooks.remove()
        self.head.remove()
        if self.attention is not None:
            set_attention(model, self.attention)
        delattr(model, ADAPTERS)
        for name, value in model.named_parameters():
            value.requires_grad_(self.required.get(name, False))
        model.train(model.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training; the frozen network stays in evaluation mode where it is not to drop out."""
        super().train(mode)
        if mode and not self.backbone_dropout:
            for child in self.model.children():
                if child is not self:
                    child.eval()
            super().train(mode)  # what the active method has in there
        return self

    def fingerprint(self) -> str:
        """Of the backbone's weights, its head aside."""
        if not self._fingerprints:
            self._fingerprints.append(weights_fingerprint(self.model, without=self.head.original))
        return self._fingerprints[0]

    def holds(self, fingerprint: object) -> bool:
        """Whether a fingerprint is that of the backbone's weights, as they were before the first adapter."""
        if self.fingerprint() == fingerprint or fingerprint in self._fingerprints:
            return True
        if has_weights(self.model, fingerprint, self.head.original):
            self._fingerprints.append(str(fingerprint))
        return fingerprint in self._fingerprints


def adapters_of(model: nn.Module) -> Adapters:
    """The adapters of a model; an ``AdapterError`` says that it has none."""
    adapters = getattr(model, ADAPTERS, None)
    if not isinstance(adapters, Adapters):
        raise AdapterError(f"this {type(model).__name__} has no adapter; give it one with mmpt.adapt(model, options)")
    return adapters
