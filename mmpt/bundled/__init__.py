"""What ships with the package so that every command works offline: a toy T5 and miniature tasks, both synthetic."""

from __future__ import annotations

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "t5-toy"

__all__ = ["MODEL_DIR"]
