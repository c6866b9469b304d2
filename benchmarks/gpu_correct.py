"""Whether a GPU computes what a CPU does: every method on every architecture, and CUDA graphs, in float32.

The networks are those of tests/tiny.py and tests/tiny_encoders.py, so this runs in a checkout of the repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from benchmarks.graphs import Graphs
from mmpt.attention.architectures import ARCHITECTURES
from mmpt.cache.activations import compute
from mmpt.errors import MmptError
from mmpt.methods import names, options_class, parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.engine import build_engine
from tests import devices, tiny, tiny_encoders

TOLERANCE = 1e-4  # of the loss, and of the gradient relative to its largest value
SMALL = {"router_noise": 0.0, "num_virtual_tokens": 4, "reparametrization_hidden": 8, "r": 2, "max_length": 9}
KINDS = ["t5", "llama", "bert"]  # one architecture of each
SPREAD = ["multimask", "smop"]  # methods of networks that lie on two devices
Found = tuple[float, Tensor]


def on(batch: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """A batch on a device."""
    return {name: value.to(device) for name, value in batch.items()}


def adapted(model_type: str, method: str, device: str, spread: bool = False) -> tuple[AdaptedModel, dict[str, Tensor]]:
    """A method on a tiny random network of an architecture, all its gates open, and a batch.

    With ``spread``, only the first layer of each stack lies on the device, the others on the CPU.
    """
    if ARCHITECTURES[model_type].has_head:
        backbone, batch = tiny_encoders.backbone(model_type), tiny_encoders.batch()
    else:
        backbone = tiny.backbone(model_type)
        batch = dict(zip(("input_ids", "attention_mask", "labels"), tiny.batch(), strict=True))
    if spread:
        devices.spread(backbone.model, torch.device(device), torch.device("cpu"))
    torch.manual_seed(1)
    known = {field.name for field in fields(options_class(method))}
    model = build_engine(backbone, parse(method, {name: value for name, value in SMALL.items() if name in known}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # nothing stays zero
                noise = torch.randn_like(parameter)
                parameter.add_(0.1 * parameter.std(correction=0).clamp(min=0.5) * noise)
    return (model if spread else model.to(device)).train(), on(batch, device)


def outcome(model: AdaptedModel, loss: Tensor) -> Found:
    """The loss, and the gradient of all that trains in one vector, float64 on the CPU; None counts as zeros."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    return loss.item(), torch.cat([grad.detach().flatten().double().cpu() for grad in found])


def apart(found: Found, wanted: Found) -> float:
    """The larger one of both differences, relative to the loss and to the largest value of the gradient."""
    (loss, gradient), (true_loss, true_gradient) = found, wanted
    gradients = (gradient - true_gradient).abs().max() / true_gradient.abs().max()
    return max(abs(loss - true_loss) / max(1.0, abs(true_loss)), gradients.item())


def passed(model_type: str, method: str, device: str, spread: bool = False) -> Found:
    """Loss and gradient of one pass."""
    model, batch = adapted(model_type, method, device, spread)
    loss = model(**batch).loss
    loss.backward()
    return outcome(model, loss)


def graph_difference(device: str) -> float:
    """Replays on cached states against passes without cache on the CPU: batches of two shapes, each shape twice."""
    plain, batch = adapted("t5", "multimask", "cpu")
    model, _ = adapted("t5", "multimask", device)
    graphs, most = Graphs(model), 0.0
    for rows in ([0, 1, 2], [2, 3, 4], [0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 0, 2]):
        part = {name: value[rows] for name, value in batch.items()}
        plain.zero_grad()
        loss = plain(**part).loss
        loss.backward()
        given = on(part, device)
        lengths = [part["input_ids"].shape[1]] * len(rows)
        states = compute(model, lengths, [(range(len(rows)), given)]).batch(list(range(len(rows))))
        most = max(most, apart(outcome(model, graphs({**given, **states})), outcome(plain, loss)))
    return most


def correct(device: str, quick: bool) -> dict[str, Any]:
    """Every method on every architecture, on the device against the CPU, in float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    differences, refused, failed = {}, [], {}
    for model_type in KINDS if quick else ARCHITECTURES:
        for method in names():
            name = f"{method} on {model_type}"
            try:
                wanted = passed(model_type, method, "cpu")
            except MmptError:
                refused.append(name)
                continue
            try:
                differences[name] = apart(passed(model_type, method, device), wanted)
                if model_type in KINDS and method in SPREAD:
                    differences[f"{name}, spread"] = apart(passed(model_type, method, device, True), wanted)
            except (RuntimeError, ValueError) as error:
                failed[name] = first_line(error)
    try:
        differences["CUDA graphs"] = graph_difference(device)
    except (RuntimeError, ValueError) as error:
        failed["CUDA graphs"] = first_line(error)
    beyond = {name: value for name, value in differences.items() if not value <= TOLERANCE}
    worst = max(differences, key=lambda name: differences[name], default="none")
    found = {"compared": len(differences), "refused": refused, "worst": worst, "difference": differences.get(worst)}
    return {**found, "tolerance": TOLERANCE, "beyond": beyond, "failed": failed}


def first_line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
