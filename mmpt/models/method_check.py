"""Whether a method does what every method must: a matrix of properties on tiny random networks of every kind.

For methods of the user's own above all, whose mistakes training alone would not show.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from mmpt.attention.architectures import ARCHITECTURES
from mmpt.data.collate import IGNORED
from mmpt.errors import ConfigError, MmptError, ModelError
from mmpt.methods import parse
from mmpt.methods.options import MethodOptions
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import load_state, read_adapter, save_adapter
from mmpt.models.backbone import CLASSES, Backbone
from mmpt.models.engine import build_engine
from mmpt.utils import extensions
from mmpt.utils.untrusted import one_line

_COMMON = {"vocab_size": 48, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
NETWORKS: dict[str, dict[str, Any]] = {  # by architecture: one of each kind
    "t5": {"d_model": 16, "d_kv": 4, "num_heads": 4, "d_ff": 16, "num_layers": 2, "decoder_start_token_id": 0},
    "gpt2": {"n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 96},
    "bert": {
        "hidden_size": 16,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 96,
    },
}
STEPS, RATE = 4, 0.05  # of the training that is tried
CLOSE = 1e-4  # between losses that must be equal


class _Vocabulary:
    """What starting values need of a tokenizer."""

    all_special_ids = (0, 1, 2)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [3 + ord(letter) % 45 for letter in text]}

    def __len__(self) -> int:
        return 48


def report(name: str, values: Mapping[str, Any] | None = None) -> list[str]:
    """Run the matrix of networks, sites and properties on a method, with ``values`` in place of its options' defaults.

    Returns:
        Every problem, one line each, with the network and its site; none for a sound method. A network that the method
        refuses with a ``ConfigError`` is left out, unless it refuses all.
    """
    problems: list[str] = []
    refusals: list[str] = []
    try:
        options = parse(name, values or {})
    except ConfigError as error:
        return [f"options: {text}" for text in error.problems]
    cases = list(_cases(options))
    for architecture, sites in cases:
        where = f"{architecture}, site {sites['sites'][0]}" if sites else architecture
        try:
            problems += [f"{where}: {text}" for text in _problems(replace(options, **sites), architecture)]
        except ConfigError as error:
            refusals.append(f"{where}: {error.problems[0]}")
        except MmptError as error:
            problems.append(f"{where}: {one_line(error).removeprefix(f'method={name}: ')}")
        except Exception as error:  # whatever the method's own code raises
            problems.append(f"{where}: {extensions.raised(error)}")
    return problems if problems or len(refusals) < len(cases) else refusals


def _cases(options: MethodOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every network, with every site by itself where the method has the option ``sites``."""
    for name in NETWORKS:
        if hasattr(options, "sites"):
            yield from ((name, {"sites": [site]}) for site in ARCHITECTURES[name].sites)
        else:
            yield name, {}


def _problems(options: MethodOptions, architecture: str) -> Iterator[str]:
    model, batch = _model(options, architecture), _batch(architecture)
    model.standardize_router([_with_continuations(batch)])
    cacheable = model.cacheable_layers.count  # before any pass, which is then checked against it
    before = _losses(model.eval(), batch)
    if not torch.equal(before, _losses(model, batch)):
        yield "two passes over the same batch differ in evaluation mode; noise is for training (self.training) only"
    yield from _training_problems(model, batch)
    after = _losses(model.eval(), batch)
    if torch.allclose(after, before, atol=1e-6):
        yield f"{STEPS} steps of training change no loss: what the method adds has no effect"
    if (row := _dependent_row(model, batch, after)) is not None:
        yield (
            f"the loss of example {row} depends on the other examples of its batch; make every tensor of a "
            "contribution from that example's own mean"
        )
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(Path(folder), model.method, {})
        adapter = read_adapter(Path(folder))
    again = _model(parse(adapter.method, adapter.options), architecture, seed=7)
    load_state(again.method, adapter.state, options.name)
    if not torch.allclose(_losses(again.eval(), batch), after, atol=CLOSE):
        yield "saved and loaded, the adapter gives other losses; keep all that counts in parameters, buffers, options"
    if cacheable and not torch.allclose(_cached(model, batch), after, atol=CLOSE):
        yield "losses with cached states differ from those without; the method changes layers that it says it does not"


def _training_problems(model: AdaptedModel, batch: dict[str, Tensor]) -> Iterator[str]:
    """What a few steps of training show of every parameter."""
    model.method.parameter_groups()  # raises where groups and parameters disagree
    frozen = {name: value.detach().clone() for name, value in model.named_parameters() if not value.requires_grad}
    named = {name: value for name, value in model.method.named_parameters() if model.method.NEEDS_EVERY_GRADIENT}
    optimizer = torch.optim.Adam(model.method.parameters(), lr=RATE)
    silent = dict.fromkeys(named, True)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = model.train()(**batch).loss
        if not loss.requires_grad:
            yield "no parameter gets a gradient: nothing that the method adds depends on one"
            return
        loss.backward()
        for name, parameter in named.items():
            if parameter.grad is None and step == 0:
                yield f"parameter {name} gets no gradient: it is detached, or nothing is made of it"
            silent[name] = silent[name] and parameter.grad is not None and not parameter.grad.any()
        optimizer.step()
    for name in (name for name, always in silent.items() if always):
        yield f"the gradient of parameter {name} is zero in each of {STEPS} steps"
    for name, value in model.named_parameters():
        if name in frozen and not torch.equal(value, frozen[name]):
            yield f"{name} of the frozen backbone changes in training"


def _dependent_row(model: AdaptedModel, batch: dict[str, Tensor], together: Tensor) -> int | None:
    """The first example whose loss is another one alone than in its batch."""
    for row, loss in enumerate(together):
        alone = _losses(model, {name: part[row : row + 1] for name, part in batch.items()})
        if not torch.allclose(alone[0], loss, atol=CLOSE):
            return row
    return None


def _cached(model: AdaptedModel, batch: dict[str, Tensor]) -> Tensor:
    given, labels = _with_continuations(batch), batch["labels"]
    model.injection.set({})
    with torch.no_grad():
        states = model.constants(given)
        return model.losses(model.start({**given, "states": states, "means": model.mean_embeddings(batch)}), labels)


def _with_continuations(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """With what a decoder-only model reads of a label."""
    labels = batch["labels"]
    read = labels[:, :-1].masked_fill(labels[:, 1:] == IGNORED, IGNORED)
    return {**batch, "continuations": read.unsqueeze(1)}


def _losses(model: AdaptedModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        losses: Tensor = model(**batch).losses
    return losses


def _model(options: MethodOptions, architecture: str, seed: int = 1) -> AdaptedModel:
    """The method on a tiny random network, whose weights do not depend on the seed."""
    torch.manual_seed(0)
    kind = ARCHITECTURES[architecture].kind
    config = AutoConfig.for_model(architecture, **_COMMON, **NETWORKS[architecture])
    network = CLASSES[kind].from_config(config, attn_implementation="mmpt_sdpa")
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.3)
    network.requires_grad_(False).eval()
    before = [(parameter, parameter.detach().clone()) for parameter in network.parameters()]
    tokenizer: Any = _Vocabulary()
    backbone = Backbone(network, tokenizer, "tiny", "tiny random network")
    torch.manual_seed(seed)
    model = build_engine(backbone, options.for_architecture(architecture))
    if not all(torch.equal(parameter, value) for parameter, value in before):
        raise ModelError("the backbone's own weights change when the method is attached; only training may change them")
    return model


def _batch(architecture: str) -> dict[str, Tensor]:
    """Four sources of different lengths, with labels as the network's kind has them."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 48, (4, 8), generator=generator)
    mask = (torch.arange(8) < torch.tensor([8, 6, 7, 5])[:, None]).long()
    labels = torch.randint(3, 48, (4, 3), generator=generator)
    labels[1, 2] = IGNORED
    if ARCHITECTURES[architecture].has_head:
        labels = torch.tensor([[0], [1], [1], [0]])
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}
