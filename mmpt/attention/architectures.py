"""The one table of architectures: what kind a model is, where its attention lies, how keys and values come about.

Keyed by ``config.model_type``. No torch is imported here, so that a wrong site is answered at once.

Letters: N tokens, d model width, H key/value heads, k head width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mmpt.errors import ConfigError, ModelError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

ROTARY = "rotary_emb"
Kind = Literal["seq2seq", "causal", "encoder"]
Site = Literal["encoder", "decoder", "cross", "self"]


@dataclass(frozen=True)
class Architecture:
    """What injection, methods and the kinds of models must know of an architecture."""

    kind: Kind  # seq2seq (encoder and decoder), causal (decoder alone) or encoder (with a classification head)
    # by site: the stack's list of layers, from the model's base model, and the attention module, from a layer; the site
    # of a single stack is self
    sites: Mapping[str, tuple[str, str]]
    key: str = "k_proj"  # the projection to keys, from an attention module; not used where there is fused
    value: str = "v_proj"  # the projection to values
    query: str = "q_proj"  # the projection to queries
    output: str = "o_proj"  # the projection of what attention gives
    fused: str | None = None  # the projection to queries, keys and values, in this order
    key_norm: str | None = None  # what is applied to each head's keys after their projection
    head_dim: str = "head_dim"  # the attention module's attribute with the head width
    relative_bias: bool = False  # whether T5's relative position bias is added, which method.layout=paper needs
    # whether the stack scales the word embeddings of ids, but not the embeddings that it is given
    scales_ids: bool = False
    # the module that takes the positions of tokens, from the model's base model; None: not known
    positions: str | None = None
    soft_capped: bool = False  # whether attention scores are capped, which only model.attention=eager can do
    limited: bool = False  # whether positions come from a table, which ends at config.max_position_embeddings
    overflows: bool = False  # whether hidden states of its checkpoints exceed 65504, where float16 ends
    # under which name peft's tables have the usual target_modules of LoRA and (IA)3; None: they lack them
    peft: str | None = None
    # the same where they lack them: lora, ia3, and those of ia3 whose input is rescaled
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def rotary(self) -> bool:
        """Whether positions rotate keys and queries."""
        return self.positions == ROTARY

    @property
    def has_head(self) -> bool:
        """Whether the model ends in a classification head, and writes no text."""
        return self.kind == "encoder"

    def head_reads_first(self, config: Any) -> bool:
        """Whether the classification head of a model with this configuration reads its first token alone."""
        return self.has_head and getattr(config, "classifier_pooling", "cls") == "cls"

    @property
    def has_encoder(self) -> bool:
        """Whether a decoder reads the output of an encoder."""
        return self.kind == "seq2seq"

    @property
    def decoder_only(self) -> bool:
        """Whether source and target are one sequence."""
        return self.kind == "causal"

    @property
    def default_sites(self) -> tuple[Site, ...]:
        """What ``method.sites=auto`` means."""
        return ("decoder", "cross") if self.has_encoder else ("self",)

    def layers(self, model: PreTrainedModel, site: str) -> Any:
        """The stack's list of layers that a site's attention is in, an ``nn.ModuleList``."""
        return model.base_model.get_submodule(self.sites[site][0])

    def modules(self, model: PreTrainedModel) -> dict[str, list[nn.Module]]:
        """The attention modules of every site, first layer first."""
        return {
            site: [layer.get_submodule(attention) for layer in self.layers(model, site)]
            for site, (_, attention) in self.sites.items()
        }

    def width_of_heads(self, module: nn.Module) -> tuple[int, int]:
        """Key/value heads H and head width k of an attention module; grouped queries share a key head."""
        width = int(getattr(module, self.head_dim))
        if self.fused is not None:
            rows = _rows(module.get_submodule(self.fused)) // 3
        else:
            rows = _rows(module.get_submodule(self.key))
        return rows // width, width

    def keys_values(self, module: nn.Module, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (H, N, k), that an attention module makes of the hidden states (N, d) it reads.

        Keys of rotary models are not rotated: as a prefix, they all lie at position 0.
        """
        heads, width = self.width_of_heads(module)
        if self.fused is not None:
            key, value = module.get_submodule(self.fused)(states).chunk(3, dim=-1)[1:]
        else:
            key, value = (module.get_submodule(name)(states) for name in (self.key, self.value))
        key, value = (part.unflatten(-1, (heads, width)) for part in (key, value))  # (N, H, k)
        if self.key_norm is not None:
            key = module.get_submodule(self.key_norm)(key)
        return key.transpose(0, 1), value.transpose(0, 1)


def _rows(projection: Any) -> int:
    """Output width of a linear layer; ``nf`` of GPT-2's."""
    return int(projection.nf if hasattr(projection, "nf") else projection.out_features)


_T5 = Architecture(
    "seq2seq",
    {
        "encoder": ("encoder.block", "layer.0.SelfAttention"),
        "decoder": ("decoder.block", "layer.0.SelfAttention"),
        "cross": ("decoder.block", "layer.1.EncDecAttention"),
    },
    key="k",
    value="v",
    query="q",
    output="o",
    head_dim="key_value_proj_dim",
    relative_bias=True,
    overflows=True,
    peft="t5",  # mt5 too: what the papers name
)
_BART_SITES = {
    "encoder": ("encoder.layers", "self_attn"),
    "decoder": ("decoder.layers", "self_attn"),
    "cross": ("decoder.layers", "encoder_attn"),
}
_LLAMA_SITES = {"self": ("layers", "self_attn")}
_BERT = Architecture(
    "encoder",
    {"self": ("encoder.layer", "attention.self")},
    key="key",
    value="value",
    head_dim="attention_head_size",
    limited=True,
    peft="bert",
)

ARCHITECTURES: dict[str, Architecture] = {
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "bart": Architecture("seq2seq", _BART_SITES, output="out_proj", limited=True, peft="bart"),
    "pegasus": Architecture("seq2seq", _BART_SITES, output="out_proj", limited=True, scales_ids=True, peft="bart"),
    "gpt2": Architecture("causal", {"self": ("h", "attn")}, fused="c_attn", limited=True, positions="wpe", peft="gpt2"),
    "opt": Architecture(
        "causal",
        {"self": ("decoder.layers", "self_attn")},
        limited=True,
        positions="decoder.embed_positions",
        peft="opt",
    ),
    "llama": Architecture("causal", _LLAMA_SITES, positions=ROTARY, peft="llama"),
    "qwen2": Architecture("causal", _LLAMA_SITES, positions=ROTARY, peft="qwen2"),
    "qwen3": Architecture("causal", _LLAMA_SITES, positions=ROTARY, key_norm="k_norm", peft="qwen3"),
    "gemma": Architecture("causal", _LLAMA_SITES, positions=ROTARY, peft="gemma"),
    "gemma2": Architecture("causal", _LLAMA_SITES, positions=ROTARY, soft_capped=True, peft="gemma2"),
    "gemma3_text": Architecture("causal", _LLAMA_SITES, positions=ROTARY, key_norm="k_norm", peft="gemma3_text"),
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "modernbert": Architecture(
        "encoder",
        {"self": ("layers", "attn")},
        fused="Wqkv",
        targets={"lora": ("Wqkv",), "ia3": ("Wqkv", "mlp.Wo"), "feedforward": ("mlp.Wo",)},
    ),
}

_OWN = "its attention does not go through transformers' attention interface, where prefixes are put in"
REFUSED: dict[str, str] = {
    **dict.fromkeys(("bloom", "deberta", "deberta-v2", "falcon", "gpt_neo", "gptj", "longformer", "mpnet"), _OWN),
    **dict.fromkeys(("led", "mvp", "prophetnet", "xlnet"), _OWN),
    "mbart": "its decoder starts with a language code, which label words do not have",
    "gemma3": "it is the model with images; the text models state gemma3_text",
}


def architecture_of(model_type: str) -> Architecture:
    """Find the architecture of a ``model_type``, as ``config.json`` states it.

    ModelError: it cannot be injected, for the stated reason, or nobody has tested it.
    """
    architecture = ARCHITECTURES.get(model_type)
    if architecture is None:
        reason = REFUSED.get(model_type, f"it is not among the tested ones{nearest(model_type, ARCHITECTURES)}")
        raise ModelError(
            f"the attention of {model_type!r} models cannot carry prefixes: {reason}; architectures that can: "
            f"{', '.join(ARCHITECTURES)}"
        )
    return architecture


def refuse_dtype(model_type: str, dtype: str) -> None:
    """Reject a ``model.dtype`` that hidden states do not fit into, by a ConfigError with those that work."""
    if dtype == "float16" and ARCHITECTURES[model_type].overflows:
        raise ConfigError(
            f"model.dtype=float16: hidden states of {model_type} models exceed float16's largest number, 65504; set "
            "model.dtype=bfloat16 or float32"
        )


def refuse_sites(model_type: str, sites: Sequence[str] | str) -> None:
    """Reject ``method.sites`` that a known architecture lacks, by a ConfigError; a word such as ``auto`` names none."""
    have = ARCHITECTURES[model_type].sites
    absent = [] if isinstance(sites, str) else [site for site in sites if site not in have]
    if absent:
        raise ConfigError(
            f"method.sites={list(sites)}: {model_type} models have no {absent[0]} attention; their sites are "
            f"{', '.join(have)}; set method.sites=auto"
        )
