"""Which layers of a frozen network ``model.quantization`` stores in 8 or 4 bits, and how many bytes they take then.

Formats: int8 as in LLM.int8() (https://arxiv.org/abs/2208.07339), a float32 scale for each row of a matrix; nf4 as in
QLoRA (https://arxiv.org/abs/2305.14314), a float32 scale for each block of 64 numbers.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mmpt.attention.absorb import absorbs
from mmpt.attention.architectures import architecture_of
from mmpt.models.parts import head_parameters

BLOCK = 64  # numbers of nf4 that share a scale
SCALE_BYTES = 4


def quantised(model: PreTrainedModel, cross_attention: str = "auto") -> dict[str, nn.Linear | Conv1D]:
    """The linear layers that are stored in 8 or 4 bits, by path.

    Not among them: what is trained or tied to the embeddings (heads), T5's ``wo``, whose results exceed float16, and
    keys and values of cross attention where it may absorb them, which reads their weights.

    Args:
        model: Not quantised yet; on any device, ``meta`` too.
        cross_attention: ``model.cross_attention``.
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


def weight_bytes(model: PreTrainedModel, cross_attention: str = "auto") -> dict[str, int]:
    """Bytes of a model's weights by type, ``float32``, ``bfloat16``, ``int8`` and ``nf4``.

    With ``int8`` and ``nf4``, what is not quantised is in bfloat16. Arguments are those of :func:`quantised`.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    layers = list(quantised(model, cross_attention).values())
    sizes = [layer.weight.numel() for layer in layers]
    count = sum(sizes)
    rows = sum(layer.nf if isinstance(layer, Conv1D) else layer.out_features for layer in layers)
    blocks = sum(-(-size // BLOCK) for size in sizes)
    rest = 2 * (total - count)
    return {
        "float32": 4 * total,
        "bfloat16": 2 * total,
        "int8": rest + count + SCALE_BYTES * rows,
        "nf4": rest + -(-count // 2) + SCALE_BYTES * blocks,
    }
