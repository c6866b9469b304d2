"""The library: adapters on a model that somebody has loaded. ``docs/library.md`` shows how.

The command line's runs go the same way: :class:`mmpt.models.adapted.AdaptedModel` stands on what :func:`adapt` makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmpt.errors import AdapterError, DataError, ModelError
from mmpt.methods.options import MethodOptions
from mmpt.models.activation_probe import ActivationProbe
from mmpt.models.adapter_files import start_from
from mmpt.models.adapters import Adapters, adapters_of
from mmpt.models.parts import ADAPTERS, word_embeddings

Model = TypeVar("Model", bound=PreTrainedModel)


def adapt(
    model: Model,
    options: MethodOptions,
    name: str = "default",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int | None = None,
    backbone_dropout: bool = True,
) -> Model:
    """Give a model a trainable adapter, in place.

    The model is frozen, and its attention switched to one that can carry prefixes. Class, ``config``, ``generate``,
    pipelines, Trainer, accelerate and DDP work as before: what the method adds is computed in forward hooks.

    Args:
        model: A loaded model of a supported architecture: ``...ForConditionalGeneration``, ``...ForCausalLM`` or
            ``...ForSequenceClassification``, whose head is then trained too.
        options: Of the method, such as ``mmpt.MultiMask(num_routes=4)``.
        name: The adapter's; a model can have several, of which the last one added is active.
        tokenizer: The model's, which ``init="text"`` needs; ``init="vocab"`` draws no special pieces with it.
        seed: Of the starting values; by default, torch's global generator gives them.
        backbone_dropout: Whether the frozen network drops out in ``model.train()``, as it does without an adapter.

    Returns:
        The same object.

    Raises:
        ModelError: The architecture or class is not supported.
        ConfigError: The options do not suit the model.
        AdapterError: The name is taken, or the adapter to start from cannot be used.
    """
    adapters = attach(model, options, name, tokenizer=tokenizer, seed=seed)
    adapters.backbone_dropout = backbone_dropout
    model.train(model.training)
    return model


def attach(
    model: PreTrainedModel,
    options: MethodOptions,
    name: str = "default",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int | None = None,
    fingerprint: str | None = None,
    initialise: bool = True,
    most: int | None = None,
    fresh: Sequence[str] = (),
) -> Adapters:
    """As :func:`adapt`, with its arguments and errors, for callers that know more about the model.

    They may give the ``fingerprint`` of its weights, ``initialise=False`` before an adapter is loaded, the ``most``
    numbers that the method may have, and the ``fresh`` parameters of a classification head, which are drawn anew.

    Returns:
        The model's adapters.
    """
    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"a {type(model).__name__} cannot be adapted; give a model of transformers (PreTrainedModel)")
    if not isinstance(options, MethodOptions):
        raise AdapterError(f"{options!r} has no options of a method; give an object such as mmpt.Prefix()")
    adapters = getattr(model, ADAPTERS, None) or Adapters(model)
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        taken = name in adapters.methods
        try:
            method = adapters.add(name, options, most=most, fresh=fresh)
            if initialise:
                training = model.training
                model.eval()
                method.initialise(ActivationProbe(adapters.hooks, tokenizer))
                model.train(training)
                if getattr(options, "init", None) == "adapter":
                    start_from(method, method.options.init_adapter, fingerprint or adapters.fingerprint())
        except BaseException:
            if name in adapters.methods and not taken:
                adapters.remove(name)
            else:
                adapters.leave_if_empty()
            raise
    return adapters


@torch.no_grad()
def standardize_router(model: Model, batches: Iterable[Mapping[str, Tensor]]) -> Model:
    """Let the active adapter's router take mean and standard deviation of what it reads: ``router_standardize=True``.

    It must be called before training; ``train.py`` does the same for its runs.

    Args:
        model: An adapted model.
        batches: The batches that the adapter is trained on, with labels (a DataLoader, for example). The model runs on
            each once, in evaluation mode.

    Returns:
        The same object.

    Raises:
        AdapterError: No adapter is active, it has no such router, or there are no batches.
        DataError: A batch of a decoder-only model does not say where its prompts end.
    """
    name, method = adapters_of(model).chosen(None)
    if (router := method.standardizing) is None:
        raise AdapterError(f"adapter {name!r} has no router with router_standardize=True; set it in its options")
    training, means, device = model.training, list[Tensor](), word_embeddings(model).weight.device
    decoder_only = adapters_of(model).hooks.injection.architecture.decoder_only
    handle = router.register_forward_pre_hook(lambda module, given: means.append(given[0].cpu()))
    try:
        model.eval()
        for batch in batches:
            if decoder_only and not {"labels", "prompt_length"} & {*batch}:
                raise DataError("the router reads prompts; give labels or prompt_length in each batch, as in training")
            model(**send_to_device(dict(batch), device))
    finally:
        handle.remove()
        model.train(training)
    if not means:
        raise AdapterError("there are no batches; give those of the training texts")
    router.standardize(means)
    return model


def remove_adapter(model: Model, name: str | None = None) -> Model:
    """Remove adapters. With the last one, the model is as it was: the same logits to the bit, nothing left behind.

    Args:
        model: An adapted model.
        name: The adapter; by default all of them.

    Returns:
        The same object.

    Raises:
        AdapterError: No such adapter.
        ConfigError: ``full`` has changed the weights themselves.
    """
    adapters = adapters_of(model)
    for each in list(adapters.methods) if name is None else [name]:
        adapters.remove(each)
    return model


def merge_adapter(model: Model, name: str | None = None) -> Model:
    """Let the model's own weights do what an adapter does, and remove the adapter: ``lora``, ``ia3`` and ``full``.

    Args:
        model: An adapted model.
        name: The adapter; by default the active one.

    Returns:
        The same object, without the adapter.

    Raises:
        AdapterError: No such adapter, or there are others, which were not made for the merged weights.
        ConfigError: The method adds what no weight can hold.
    """
    adapters = adapters_of(model)
    chosen, _ = adapters.chosen(name)
    if others := [other for other in adapters.methods if other != chosen]:
        raise AdapterError(
            f"merging {chosen!r} would change the weights under the other adapters ({', '.join(others)}); remove them "
            "first with mmpt.remove_adapter"
        )
    adapters.remove(chosen, merge=True)
    return model


def set_adapter(model: nn.Module, name: str) -> None:
    """Make one of a model's adapters the active one, which is used and trained.

    Raises:
        AdapterError: No such adapter.
    """
    adapters_of(model).activate(name)


def disable_adapter(model: nn.Module) -> AbstractContextManager[None]:
    """Let the model run without its adapters within a ``with`` block.

    Raises:
        AdapterError: The model has none.
        ConfigError: On entering: ``full`` is the model itself.
    """
    return adapters_of(model).disabled()
