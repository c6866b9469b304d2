"""Every method's options as a frozen dataclass. No torch here, so that a typo is answered at once.

``OPTIONS`` is the one table of method names: its keys are the YAML files of ``conf/method`` and the modules of
``mmpt.methods``.
"""

from __future__ import annotations

from mmpt.methods.options.baselines import IA3, Full, LoRA
from mmpt.methods.options.common import (
    HEAD,
    HEAD_RATE,
    SITES,
    DeepPrefix,
    MaskOptions,
    MethodOptions,
    PrefixShape,
    RouterOptions,
    Site,
    Start,
)
from mmpt.methods.options.own import find_own
from mmpt.methods.options.prefixes import AdaptivePrefix, MultiMask, Prefix
from mmpt.methods.options.prompts import MEPT, DePT, Prompt, PTuning, Residual, SMoP

__all__ = [
    "HEAD",
    "HEAD_RATE",
    "IA3",
    "MEPT",
    "OPTIONS",
    "SITES",
    "AdaptivePrefix",
    "DePT",
    "DeepPrefix",
    "Full",
    "LoRA",
    "MaskOptions",
    "MethodOptions",
    "MultiMask",
    "PTuning",
    "Prefix",
    "PrefixShape",
    "Prompt",
    "Residual",
    "RouterOptions",
    "SMoP",
    "Site",
    "Start",
    "options_of",
]

OPTIONS: dict[str, type[MethodOptions]] = {
    "multimask": MultiMask,
    "prefix": Prefix,
    "apt": AdaptivePrefix,
    "smop": SMoP,
    "mept": MEPT,
    "prompt": Prompt,
    "ptuning": PTuning,
    "residual": Residual,
    "dept": DePT,
    "lora": LoRA,
    "ia3": IA3,
    "full": Full,
}


def options_of(name: object) -> type[MethodOptions] | None:
    """The options of a method by its name, one of the user's own (:mod:`mmpt.methods.options.own`) too; None: no such.

    Raises:
        ConfigError: The user's file can't be used.
    """
    if isinstance(name, str) and name in OPTIONS:
        return OPTIONS[name]
    found = find_own(name)
    return None if found is None else found.options
