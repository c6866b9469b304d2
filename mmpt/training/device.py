"""The device that a run trains on, and what ``trainer.*`` asks of it."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from mmpt.config.schema import TrainerConfig
from mmpt.errors import ConfigError


def prepare_device(settings: TrainerConfig) -> Accelerator:
    """Set PyTorch's global switches to what the settings need; ConfigError where the device cannot do that.

    Mixed precision is not set here: accelerate allows one kind per process, and a sweep's trials may differ in it.
    """
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    gpu = accelerator.device.type == "cuda"
    problems = []
    if settings.fp16 and not gpu:
        problems.append("trainer.fp16=true needs a GPU, and there is none; set trainer.bf16=true or leave it out")
    if settings.bf16 and gpu and not torch.cuda.is_bf16_supported():
        problems.append("trainer.bf16=true: this GPU has no bfloat16; set trainer.fp16=true or leave it out")
    if settings.tf32 and not (gpu and torch.cuda.get_device_capability()[0] >= 8):
        problems.append("trainer.tf32=true needs a GPU of the Ampere generation or later; leave it out")
    if problems:
        raise ConfigError(problems)
    if settings.tf32 is not None and gpu:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
    if settings.full_determinism:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(settings.full_determinism)
    return accelerator
