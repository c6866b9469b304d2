"""Replay a golden case of the published code with the product's own classes.

    python -m tests.reference.replay IN.safetensors OUT.safetensors

Reads ``backbone.*``, ``method.*``, ``in.*`` and the metadata; writes ``out.*`` and ``grad.*`` in the same names and
shapes (of ``out.prefix``'s four planes the two that act: keys and values).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

import mmpt
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.engine import engine_of


def read(path: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and tensors of a case."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["json"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)


def options(meta: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """The product's method and options for a published ``method_config``."""
    published = meta["method_config"]
    if published.get("gumbel") or published.get("stochastic"):
        raise SystemExit("cases with gumbel or stochastic routing aren't supported")
    tokens = published["num_virtual_tokens"]
    paper = {"layout": "paper", "sites": ["decoder"]}
    masked, subset = published.get("apply_adaptive_mask"), published.get("apply_adaptive_subset_mask")
    method = published["method"]
    if method == "prefix-tuning":
        return "prefix", {**paper, "num_virtual_tokens": tokens, "mask": "single" if masked else "none"}
    if method == "prompt-tuning":
        return "prompt", {"num_virtual_tokens": tokens}
    routing = {"num_routes": tensors["method.router.0.weight"].shape[0], "top_k": published["topk"]}
    if method == "prompt-routing":
        return "smop", {**routing, "num_virtual_tokens": tokens}
    share = published["shareType"].lower() if published["shareType"] else "none"
    mask = "none" if not masked else "per_route" if subset else "single"
    shared = published["num_shared_virtual_tokens"]
    sizes = {"num_virtual_tokens": shared, "num_route_tokens": tokens}
    return "multimask", {**paper, **routing, **sizes, "share_type": share, "mask": mask}


def names(method: str, published: dict[str, Tensor]) -> dict[str, str]:
    """Product parameter name by published parameter name."""
    if method in ("smop", "prompt"):
        return {"embedding.weight": "prompts.input", "router.0.weight": "router.weight"}
    if method == "prefix":
        return {"embedding.weight": "prefix.decoder", "mask": "masks.decoder"}
    return {
        "sharedEmbedding.weight": "prefix.decoder",
        "embedding.weight": "prompts.decoder",
        "mask": "masks.decoder",
        "subsetMask": "masks.decoder_routes",
        "router.0.weight": "router.weight",
    }


def build_model(meta: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[AdaptedModel, dict[str, str]]:
    """The case's model, and the published name of each of its parameters."""
    config = T5Config(**meta["t5_config"])
    backbone = T5ForConditionalGeneration(config)
    weights = {name[9:]: value for name, value in tensors.items() if name.startswith("backbone.")}
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            parameter.copy_(weights.pop(name))
    if weights:
        raise SystemExit(f"backbone weights without a place: {sorted(weights)}")
    name, values = options(meta, tensors)
    model = engine_of(mmpt.adapt(backbone, parse(name, values))).eval()
    published = {key[7:]: value for key, value in tensors.items() if key.startswith("method.")}
    table = names(name, published)
    parameters = dict(model.method.named_parameters())
    with torch.no_grad():
        for key, value in published.items():
            if table[key] in parameters:
                target = parameters[table[key]]
                rows = value[: target.shape[0]] if name == "prompt" else value  # the published table has spare rows
                target.copy_(rows.reshape(target.shape) if name != "prefix" or key != "mask" else rows[:, 0, 0, :, 0].T)
    return model, table


def gradients(model: AdaptedModel, table: dict[str, str], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients in the published names and shapes; zeros where the product has no such parameter."""
    parameters = dict(model.method.named_parameters())
    result = {}
    for key in (name[7:] for name in tensors if name.startswith("method.")):
        full = torch.zeros_like(tensors[f"method.{key}"])
        parameter = parameters.get(table[key])
        if parameter is not None and parameter.grad is not None:
            if full.dim() == 5:
                full[:, 0, 0, :, 0] = parameter.grad.T
            else:
                full[: parameter.shape[0]] = parameter.grad
        result[f"grad.{key}"] = full
    return result


def replay(meta: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Forward, backward and greedy generation of a case, as ``out.*`` and ``grad.*``."""
    model, table = build_model(meta, tensors)
    ids, mask = tensors["in.input_ids"], tensors["in.attention_mask"]
    output = model(ids, mask, tensors["in.labels"])
    output.loss.backward()
    with torch.no_grad():
        logits = model.logits(ids, mask, tensors["in.labels"])
        encoded = model.encode(ids, mask)
        contribution, length = encoded.contribution, meta["generate"]["max_new_tokens"]
        generated = model.generate(encoded, **meta["generate"])
    generated = torch.nn.functional.pad(generated, (0, 1 + length - generated.shape[1]))
    result = {"out.loss": output.loss, "out.logits": logits, "out.generated": generated}
    if contribution.prompt is not None:
        result["out.prefix"] = contribution.prompt.expand(ids.shape[0], -1, -1)
    else:
        prefix = contribution.prefixes["decoder"]
        planes = torch.stack(prefix.expanded(ids.shape[0]))  # (2, B, L, H, P, k)
        result["out.prefix"] = planes.permute(2, 0, 1, 3, 4, 5)
    if contribution.route_probs is not None:
        result["out.router_probs"] = contribution.route_probs
    result |= gradients(model, table, tensors)
    return {name: value.detach().contiguous().clone() for name, value in result.items()}


def main(arguments: list[str]) -> None:
    """Read one case, write its replay."""
    if len(arguments) != 2:
        raise SystemExit("usage: python -m tests.reference.replay IN.safetensors OUT.safetensors")
    torch.set_num_threads(1)
    meta, tensors = read(arguments[0])
    save_file(replay(meta, tensors), arguments[1], metadata={"json": json.dumps({"case": meta["case"]})})


if __name__ == "__main__":
    main(sys.argv[1:])
