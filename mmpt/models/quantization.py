"""Which layers of a frozen network ``model.quantization`` stores in 8 or 4 bits, and how many bytes they take then.

Formats: int8 as in LLM.int8() (https://arxiv.org/abs/2208.07339), a float32 scale for each row of a matrix; nf4 as in
QLoRA (https://arxiv.org/abs/2305.14314), a float32 scale for each block of 64 numbers. bitsandbytes computes both, on a
CPU too.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mmpt.attention.absorb import absorbs
from mmpt.attention.architectures import architecture_of
from mmpt.config.schema import ModelConfig
from mmpt.models.parts import head_parameters

BLOCK = 64  # numbers of nf4 that share a scale
SCALE_BYTES = 4


def quantised(model: PreTrainedModel, cross_attention: str = "auto") -> dict[str, nn.Linear | Conv1D]:
    """The linear layers that are stored in 8 or 4 bits, by path, of a model that is not quantised, on any device.

    Not among them: what is trained or tied to the embeddings (heads), T5's ``wo``, whose results exceed float16, and
    keys and values of cross attention where it may absorb them (``model.cross_attention``), which reads their weights.
    """
    architecture = architecture_of(model.config.model_type)
    outside = {name.rpartition(".")[0] for name in head_parameters(model)}
    modules: list[nn.Module | None] = [model.get_output_embeddings()]
    if architecture.has_encoder and cross_attention != "projected":
        cross = architecture.modules(model)["cross"]
        names = (architecture.key, architecture.value) if absorbs(cross) else ()
        modules += [getattr(module, name) for module in cross for name in names]
    left = {id(module) for module in modules}
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and id(module) not in left
        and path not in outside
        and not (architecture.overflows and path.endswith(".wo"))
    }


def quantization_settings(model: PreTrainedModel, config: ModelConfig) -> BitsAndBytesConfig | None:
    """What transformers needs to quantise a network while it loads it; None for ``model.quantization=none``."""
    if config.quantization == "none":
        return None
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line for each type that it converts
    chosen = quantised(model, config.cross_attention)
    linear = (path for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
    left = [path for path in linear if path not in chosen]
    if config.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=left)
    dtype = getattr(torch, config.dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=left
    )


def is_quantised(model: nn.Module) -> bool:
    """Whether a model has layers in 8 or 4 bits, which transformers notes there."""
    return getattr(model, "hf_quantizer", None) is not None


def differentiable(model: nn.Module) -> None:
    """Let gradients pass through nf4 layers in evaluation mode too, in which a frozen network trains an adapter.

    On processors with AVX-512 BF16, bitsandbytes would pack them for inference, and give no gradient.
    """
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
        layer.state_dict()  # unpacks what an earlier pass has packed


def scales(model: nn.Module) -> dict[str, Tensor]:
    """What decides a quantised model's weights besides its parameters, by name; nothing for others."""
    if not is_quantised(model):
        return {}
    known = dict(model.named_parameters())
    return {name: value for name, value in model.state_dict().items() if name not in known}


def numbers(parameter: Tensor) -> int:
    """How many numbers a parameter holds; nf4 packs two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def weight_bytes(
    model: PreTrainedModel, dtype: torch.dtype = torch.bfloat16, cross_attention: str = "auto"
) -> dict[str, int]:
    """Bytes of a model's weights by quantization, ``none``, ``int8`` and ``nf4``; what is not quantised has a dtype."""
    total = sum(parameter.numel() for parameter in model.parameters())
    layers = list(quantised(model, cross_attention).values())
    sizes = [layer.weight.numel() for layer in layers]
    count = sum(sizes)
    rows = sum(layer.nf if isinstance(layer, Conv1D) else layer.out_features for layer in layers)
    blocks = sum(-(-size // BLOCK) for size in sizes)
    rest = dtype.itemsize * (total - count)
    return {
        "none": rest + dtype.itemsize * count,
        "int8": rest + count + SCALE_BYTES * rows,
        "nf4": rest + -(-count // 2) + SCALE_BYTES * blocks,
    }
