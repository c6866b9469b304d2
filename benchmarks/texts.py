"""A synthetic task with RTE's size and lengths, as files: words of the bundled vocabulary, one token each."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

from benchmarks.setting import rte_tokens

TASK = """name: lengths
template: "{text}"
label_field: kind
labels:
  %s: [one]
  %s: [three]
metric: accuracy
files: {train: train.csv, validation: validation.csv, test: test.csv}
"""


def make(folder: Path, train: int = 2241, validation: int = 249, test: int = 32) -> list[str]:
    """Write a task and its data.

    Args:
        folder: Where to; created.
        train: Training examples; 2,241 and 249 are RTE's official ones, split as published.
        validation: Validation examples.
        test: Test examples.

    Returns:
        The overrides of ``train.py`` that choose them. The labels take 2 and 4 tokens with the end token.
    """
    words = vocabulary()
    generator = random.Random(0)
    (folder / "task").mkdir(parents=True, exist_ok=True)
    (folder / "task" / "lengths.yaml").write_text(TASK % (words[0], " ".join(words[1:4])), encoding="utf-8")
    for name, count in (("train", train), ("validation", validation), ("test", test)):
        sizes = [rte_tokens((place + 0.5) / count) - 1 for place in range(count)]
        generator.shuffle(sizes)
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "kind"])
            for number, size in enumerate(sizes):
                writer.writerow([" ".join(generator.choices(words, k=size)), ("one", "three")[number % 2]])
    given = f"--config-dir={folder}"
    return [given, "task=lengths", "data=local", f"data.dir='{folder}'", "data.split=official"]


def vocabulary() -> list[str]:
    """Words that the bundled tokenizer makes one piece of."""
    tokenizer = tokens()
    pieces = sorted(piece[1:] for piece in tokenizer.get_vocab() if piece.startswith("▁") and piece[1:].isalpha())
    return [word for word in pieces if len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1]


def tokens() -> Any:
    """The bundled tokenizer."""
    from transformers import AutoTokenizer

    from mmpt.bundled import MODEL_DIR

    return AutoTokenizer.from_pretrained(str(MODEL_DIR))
