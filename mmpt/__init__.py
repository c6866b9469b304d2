"""Multi-mask prefix tuning and its peers: adapters for frozen transformers, trained and compared by one trainer.

The library in a line: ``model = mmpt.adapt(model, mmpt.MultiMask(num_routes=4))``; ``docs/library.md`` has the rest.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpt.interop.multi_adapter import load_all as load_all
    from mmpt.methods.apt.options import AdaptivePrefix as APT  # noqa: F401
    from mmpt.methods.dept.options import DePT as DePT
    from mmpt.methods.full.options import Full as Full
    from mmpt.methods.ia3.options import IA3 as IA3
    from mmpt.methods.lora.options import LoRA as LoRA
    from mmpt.methods.mept.options import MEPT as MEPT
    from mmpt.methods.multimask.options import MultiMask as MultiMask
    from mmpt.methods.prefix.options import Prefix as Prefix
    from mmpt.methods.prefix_plus.options import PrefixPlus as PrefixPlus
    from mmpt.methods.prompt.options import Prompt as Prompt
    from mmpt.methods.ptuning.options import PTuning as PTuning
    from mmpt.methods.residual.options import Residual as Residual
    from mmpt.methods.smop.options import SMoP as SMoP
    from mmpt.models.adapt import adapt as adapt
    from mmpt.models.adapt import disable_adapter as disable_adapter
    from mmpt.models.adapt import merge_adapter as merge_adapter
    from mmpt.models.adapt import remove_adapter as remove_adapter
    from mmpt.models.adapt import set_adapter as set_adapter
    from mmpt.models.parameters import parameter_groups as parameter_groups
    from mmpt.models.parameters import trainable_parameters as trainable_parameters
    from mmpt.models.saving import load_adapter as load_adapter
    from mmpt.models.saving import save_adapter as save_adapter
    from mmpt.predictor import load as load

# Read by OpenMP when torch is first imported. Threads that spin while they wait slow a shared machine down manyfold; on
# a quiet one, those that sleep at once make a step a third longer. A few spins cost little and save most of that.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"
_LAZY = {  # where each name comes from: imported on first use, because most need torch
    "APT": "mmpt.methods.apt.options:AdaptivePrefix",
    "DePT": "mmpt.methods.dept.options",
    "Full": "mmpt.methods.full.options",
    "IA3": "mmpt.methods.ia3.options",
    "LoRA": "mmpt.methods.lora.options",
    "MEPT": "mmpt.methods.mept.options",
    "MultiMask": "mmpt.methods.multimask.options",
    "PTuning": "mmpt.methods.ptuning.options",
    "Prefix": "mmpt.methods.prefix.options",
    "PrefixPlus": "mmpt.methods.prefix_plus.options",
    "Prompt": "mmpt.methods.prompt.options",
    "Residual": "mmpt.methods.residual.options",
    "SMoP": "mmpt.methods.smop.options",
    "adapt": "mmpt.models.adapt",
    "disable_adapter": "mmpt.models.adapt",
    "load": "mmpt.predictor",
    "load_adapter": "mmpt.models.saving",
    "load_all": "mmpt.interop.multi_adapter",
    "merge_adapter": "mmpt.models.adapt",
    "parameter_groups": "mmpt.models.parameters",
    "remove_adapter": "mmpt.models.adapt",
    "save_adapter": "mmpt.models.saving",
    "set_adapter": "mmpt.models.adapt",
    "trainable_parameters": "mmpt.models.parameters",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mmpt' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    found = getattr(import_module(module), attribute or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
