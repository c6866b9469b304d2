"""The curriculum of pre-training: its plan, its batches, and how well its skills are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from mmpt.errors import TrainingError
from tools.toy import skills

BLOCK = 16  # batches drawn together, so that those of one length go together
GATES: tuple[tuple[int, str, float], ...] = (  # after this step, this skill must be answered this well
    (1500, "plain", 0.8),
    (2000, "look_up", 0.5),
    (4000, "link", 0.8),
    (5000, "compare", 0.7),
)


@dataclass(frozen=True)
class Plan:
    """One pre-training curriculum."""

    steps: int = 10400
    batch: int = 128
    lr: float = 6e-4
    embeddings: float = 8.0  # the embeddings' rate is this many times as high: they start large
    turn: int = 6222  # step at which two heads are made local, once words are compared: order is hard to find otherwise
    bias: float = 8.0  # from the turn on, the position bias learns this many times as fast
    cool: float = 0.15  # share of the steps at the end over which the rate falls to zero
    warmup: int = 100
    weight_decay: float = 0.01
    seed: int = 1

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        left = (self.steps - step) / max(1.0, self.cool * self.steps)
        return self.lr * min(1.0, left, (step + 1) / self.warmup)


class Curriculum:
    """Batches of skills."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, plan: Plan) -> None:
        """Store the tokenizer and the plan.

        Args:
            tokenizer: The toy's tokenizer.
            plan: The curriculum.
        """
        self._tokenizer, self._plan, self._ids = tokenizer, plan, {}  # type: ignore[var-annotated]

    def ids(self, text: str) -> list[int]:
        """Tokenise, word by word from a cache: pieces never cross a space."""
        found: list[int] = []
        for word in text.split():
            if word not in self._ids:
                if len(self._ids) > 50_000:  # made-up words come without end
                    self._ids.clear()
                self._ids[word] = self._tokenizer(word, add_special_tokens=False).input_ids
            found += self._ids[word]
        return [*found, 1]

    def batches(self, start: int) -> Iterator[dict[str, Tensor]]:
        """Yield the batches from step ``start`` on; the same step has the same batch in every run."""
        for block in range(start // BLOCK, -(-self._plan.steps // BLOCK)):
            rng = Random(f"{self._plan.seed} {block}")
            progress = block * BLOCK / self._plan.steps
            drawn = [skills.draw(rng, progress)[1] for _ in range(BLOCK * self._plan.batch)]
            pairs = sorted(((self.ids(source), self.ids(target)) for source, target in drawn), key=lambda p: len(p[0]))
            cut = [pairs[i : i + self._plan.batch] for i in range(0, len(pairs), self._plan.batch)]
            rng.shuffle(cut)
            first, last = max(0, start - block * BLOCK), min(BLOCK, self._plan.steps - block * BLOCK)
            for pairs in cut[first:last]:
                yield collate(pairs)


def collate(pairs: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    """Pad token ids to ``input_ids, attention_mask: (B, T)`` and ``labels: (B, U)``, all int64."""
    long, wide = max(len(p[0]) for p in pairs), max(len(p[1]) for p in pairs)
    source = torch.tensor([p[0] + [0] * (long - len(p[0])) for p in pairs])
    target = torch.tensor([p[1] + [-100] * (wide - len(p[1])) for p in pairs])
    return {"input_ids": source, "attention_mask": (source != 0).long(), "labels": target}


@torch.no_grad()
def probe(model: T5ForConditionalGeneration, curriculum: Curriculum, size: int = 200) -> dict[str, float]:
    """Return, for each skill at full difficulty, the share of held-out examples answered in full."""
    scores = {}
    for name, (skill, _, _) in skills.MIX.items():
        rng = Random(f"probe {name}")
        drawn = [skill(rng, 1.0) for _ in range(size)]
        batch = collate([(curriculum.ids(source), curriculum.ids(target)) for source, target in drawn])
        labels = batch["labels"]
        right = (model(**batch).logits.argmax(-1) == labels) | (labels == -100)
        scores[name] = right.all(-1).float().mean().item()
    return scores


def check_gates(scores: dict[str, float], step: int) -> None:
    """Stop a curriculum that isn't going to arrive.

    Raises:
        TrainingError: A skill that is due by ``step`` is answered too badly.
    """
    for due, name, least in GATES:
        if step >= due and scores[name] < least:
            raise TrainingError(
                f'pre-training stopped at step {step}: skill "{name}" is answered right in {scores[name]:.0%}, at '
                f"least {least:.0%} were due by step {due}; change the mix in tools/toy/skills.py or the rate"
            )
