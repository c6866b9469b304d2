"""Checkpoints that several tests of models read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmpt.bundled import MODEL_DIR
from tests import tiny, tiny_encoders


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[str], Path]:
    """A tiny checkpoint of an architecture, with a tokenizer that its tests do not use."""

    def write(model_type: str) -> Path:
        # the tokenizer of the bundled model has 1200 pieces
        made = (tiny_encoders if model_type == "bert" else tiny).backbone(model_type, vocab_size=1200)
        folder = tmp_path / model_type
        made.model.save_pretrained(folder)
        for file in MODEL_DIR.glob("*tokenizer*"):
            shutil.copy(file, folder)
        return folder

    return write
