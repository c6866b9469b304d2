"""Multi-mask prefix tuning and its peers: adapters for frozen transformers, trained and compared by one trainer.

The library in a line: ``model = mmpt.adapt(model, mmpt.MultiMask(num_routes=4))``; ``docs/library.md`` has the rest.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpt.interop.hub import push as push
    from mmpt.interop.multi_adapter import load_all as load_all
    from mmpt.methods.apt.options import APT as APT
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
    from mmpt.models.adapt import standardize_router as standardize_router
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
_METHODS = "APT DePT Full IA3 LoRA MEPT MultiMask PTuning Prefix Prompt Residual SMoP"
_LIBRARY = {
    "mmpt.interop.hub": "push",
    "mmpt.interop.multi_adapter": "load_all",
    "mmpt.methods.prefix_plus.options": "PrefixPlus",
    "mmpt.models.adapt": "adapt disable_adapter merge_adapter remove_adapter set_adapter standardize_router",
    "mmpt.models.parameters": "parameter_groups trainable_parameters",
    "mmpt.models.saving": "load_adapter save_adapter",
    "mmpt.predictor": "load",
}
# where each name comes from: imported on first use, because most need torch
_LAZY = {name: f"mmpt.methods.{name.lower()}.options" for name in _METHODS.split()} | {
    name: module for module, names in _LIBRARY.items() for name in names.split()
}
__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mmpt' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
