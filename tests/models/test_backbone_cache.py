"""The backbone that one run leaves to the next: the same weights, and never one that was changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmpt.bundled import MODEL_DIR
from mmpt.cli import main
from mmpt.config.schema import ModelConfig
from mmpt.models import backbone_cache as cache
from mmpt.models.fingerprint import weights_fingerprint
from tests.training.test_run import SMALL, figures, metrics, run

BUNDLED = ModelConfig("bundled")


def test_the_next_run_takes_it_and_gives_what_it_gives_alone(tmp_path: Path) -> None:
    cache._cached.clear()
    alone = figures(run(tmp_path / "alone", "method=prefix", "seed=5"))
    run(tmp_path / "before", "method=multimask", "seed=4", "model.dropout=backbone")
    (left,) = cache._cached.values()
    assert figures(run(tmp_path / "after", "method=prefix", "seed=5")) == alone  # another dropout: loaded again
    run(tmp_path / "sites", "method=multimask", "method.sites=[encoder]", "seed=4")
    (left,) = cache._cached.values()
    assert figures(run(tmp_path / "again", "method=prefix", "seed=5")) == alone
    assert metrics(tmp_path / "again") == metrics(tmp_path / "alone")
    (same,) = cache._cached.values()
    assert same is left
    assert weights_fingerprint(left.model) == left.fingerprint


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_backbone_that_was_changed_is_not_cached(tmp_path: Path, method: str) -> None:
    assert main([*SMALL, "trainer.max_steps=1", f"method={method}", f"run.dir='{tmp_path / method}'"]) == 0
    assert not cache._cached


def test_nor_that_of_a_run_that_failed(tmp_path: Path) -> None:
    cache.release(BUNDLED, cache.acquire(BUNDLED))
    rates = ["optimizer=adamw", "method.lr.prefix=1e30", "method.lr.masks=1e30", "trainer.max_grad_norm=0.0"]
    assert main([*SMALL, *rates, "trainer.num_train_epochs=4", f"run.dir='{tmp_path}'"]) == 2
    assert not cache._cached


def test_files_that_changed_are_read_again(tmp_path: Path) -> None:
    for file in MODEL_DIR.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = ModelConfig("mine", source="path", path=str(tmp_path))
    first = cache.acquire(config)
    cache.release(config, first)
    assert cache.acquire(config) is first
    cache.release(config, first)
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    second = cache.acquire(config)
    assert second.fingerprint != first.fingerprint
    assert not any(torch.isnan(value).any() for value in second.model.parameters())
