"""Task definitions written by hand, so that these tests stand on their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmpt.config.schema import DataConfig, HubConfig, TaskConfig

SUPERGLUE = Path(__file__).parents[3] / "shared" / "data" / "superglue"
BOOLEAN: dict[str, list[Any]] = {"False": [False, 0], "True": [True, 1]}
OFFICIAL = {"train": "train.jsonl", "validation": "val.jsonl"}
HUB = HubConfig("nobody/nothing", "0" * 40, {"train": "rte/train.parquet", "validation": "rte/validation.parquet"})


def _config(name: str, template: str, labels: dict[str, list[Any]], directory: str, **more: Any) -> TaskConfig:
    return TaskConfig(name, template, labels=labels, directory=directory, files=OFFICIAL, hub=HUB, **more)


CONFIGS = {
    config.name: config
    for config in (
        _config("boolq", "boolq passage: {passage} question: {question}", BOOLEAN, "BoolQ"),
        _config(
            "cb",
            "cb hyopthesis: {hypothesis}. premise: {premise}",
            {"entailment": [0], "contradiction": [1], "neutral": [2]},
            "CB",
            metric="accuracy_f1",
        ),
        _config(
            "copa",
            "choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}",
            {"choice1": [0], "choice2": [1]},
            "COPA",
        ),
        _config(
            "multirc",
            "question: {question} answer: {answer}. paragraph: {paragraph}",
            BOOLEAN,
            "MultiRC",
            metric="f1a_em",
            group_field="idx.question",
            unroll="multirc",
        ),
        _config(
            "rte",
            "rte sentence1: {premise} sentence2: {hypothesis}",
            {"entailment": [0], "not_entailment": [1]},
            "RTE",
        ),
        _config("wic", "wic sentence1: {sentence1} sentence2: {sentence2} word: {word}", BOOLEAN, "WiC"),
        _config(
            "wsc",
            "wsc text: {text} pronoun: {target.span2_text} noun: {target.span1_text}",
            BOOLEAN,
            "WSC",
            unroll="wsc",
        ),
    )
}


@pytest.fixture
def configs() -> dict[str, TaskConfig]:
    return CONFIGS


@pytest.fixture
def superglue() -> Path:
    if not SUPERGLUE.is_dir():
        pytest.skip(f"needs the official data in {SUPERGLUE}")
    return SUPERGLUE


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., DataConfig]:
    """Writes files below a fresh directory (text, bytes or rows) and names it as own data."""

    def write(files: dict[str, str | bytes | list[dict[str, Any]]], **more: Any) -> DataConfig:
        for name, content in files.items():
            if isinstance(content, list):
                content = "".join(json.dumps(row) + "\n" for row in content)
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return DataConfig("local", dir=str(tmp_path), **more)

    return write
