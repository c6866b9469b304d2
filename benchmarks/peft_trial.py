"""One trial as a user of peft would write it: HF's Trainer, peft's prefix tuning, random weights of t5-small's shape.

    python -m benchmarks.peft_trial FOLDER --epochs 1 --seed 1

FOLDER is what ``benchmarks.texts.make`` wrote. Evaluation ranks the label words after every epoch: the encoder runs
once a batch, and the decoder for both labels together. Prints one JSON object with the seconds of each epoch.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.setting import BATCH, PREFIX, build
from benchmarks.texts import tokens
from mmpt.data.collate import Collator


class Examples:
    """Token ids of the three files."""

    def __init__(self, folder: Path) -> None:
        """Read and tokenise."""
        tokenizer = tokens()
        labels = yaml.safe_load((folder / "task" / "lengths.yaml").read_text(encoding="utf-8"))["labels"]
        self.labels = [tokenizer(word)["input_ids"] for word in labels]
        names = [values[0] for values in labels.values()]
        self.splits: dict[str, list[dict[str, Any]]] = {}
        for split in ("train", "validation"):
            with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            ids = tokenizer([row["text"] for row in rows])["input_ids"]
            self.splits[split] = [
                {"input_ids": one, "labels": self.labels[names.index(row["kind"])]}
                for one, row in zip(ids, rows, strict=True)
            ]


@torch.no_grad()
def evaluate(model: Any, examples: Examples, batch_size: int = 64) -> float:
    """Accuracy on the validation split by ranking, in batches of similar length."""
    model.eval()
    rows = sorted(examples.splits["validation"], key=lambda row: len(row["input_ids"]))
    longest = max(map(len, examples.labels))
    padded = torch.tensor([[*ids, *[-100] * (longest - len(ids))] for ids in examples.labels])
    right = 0
    for first in range(0, len(rows), batch_size):
        batch = Collator(0)(rows[first : first + batch_size])
        count = len(batch["input_ids"])
        states = model.get_base_model().encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        labels = padded.repeat(count, 1)
        logits = model(
            input_ids=batch["input_ids"].repeat_interleave(
                len(padded), dim=0
            ),  # peft counts them; T5 does not read them
            encoder_outputs=BaseModelOutput(last_hidden_state=states.repeat_interleave(len(padded), dim=0)),
            attention_mask=batch["attention_mask"].repeat_interleave(len(padded), dim=0),
            labels=labels,
        ).logits
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(dim=1).view(count, -1)
        found = losses.argmin(dim=1).tolist()
        right += sum(row["labels"] == examples.labels[choice] for row, choice in zip(rows[first:], found, strict=False))
    model.train()
    return right / len(rows)


class EpochTimes(TrainerCallback):
    """Evaluates after each epoch, and notes seconds."""

    def __init__(self, examples: Examples) -> None:
        """Keep what is evaluated."""
        self.examples = examples
        self.seconds: list[float] = []
        self._began = time.perf_counter()

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        """Evaluate and stop the clock."""
        evaluate(model, self.examples)
        self.seconds.append(time.perf_counter() - self._began)


def train(folder: Path, epochs: int, seed: int, rate: float = 0.05, dtype: str = "float32") -> list[float]:
    """Train with the network in a type, and return the seconds of every epoch with its evaluation."""
    from peft import PrefixTuningConfig, TaskType, get_peft_model

    examples = Examples(folder)
    config = PrefixTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=PREFIX)
    model = get_peft_model(build("t5_small", "sdpa", dtype), config)
    times = EpochTimes(examples)
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            optim="adafactor",
            learning_rate=rate,
            seed=seed,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        collate: Any = Collator(0)
        dataset: Any = examples.splits["train"]
        Trainer(model=model, args=arguments, data_collator=collate, train_dataset=dataset, callbacks=[times]).train()
    return times.seconds


def main() -> None:
    """Run one trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.05)
    arguments = parser.parse_args()
    seconds = train(arguments.folder, arguments.epochs, arguments.seed, arguments.rate)
    print(json.dumps({"epoch seconds": seconds}))


if __name__ == "__main__":
    main()
