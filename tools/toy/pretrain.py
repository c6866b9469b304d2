"""Pre-train the toy network on the miniature world: ``python -m tools.toy.pretrain --out DIR``.

Deterministic for a seed and a number of steps on one machine; resumes from ``DIR/checkpoint.pt``; prints what has been
learnt about once a minute, and stops early, saying why, where a skill is missing when it is due.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from mmpt.bundled import MODEL_DIR
from mmpt.errors import ModelError
from tools.toy.curriculum import Curriculum, Plan, check_gates, probe

BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
CARD = """# t5-toy

A **toy** T5 (0.9 M parameters, 3 encoder and 2 decoder layers, width 128) for trying things out offline. It was taught
a **synthetic** miniature world of about 170 words and nothing else: scores on it say nothing about real language.

State: {state}.

    python -m tools.toy.pretrain --out DIR      # the weights, three quarters of an hour on one core
    python -m tools.toy.probe --model DIR       # tunes prefixes on it, frozen

The skills (`tools/toy/skills.py`) use none of the downstream templates; `training.json` has the settings; the
vocabulary is frozen (`mmpt/bundled/vocabulary.py`). Share of held-out examples answered in full, at full difficulty:

| skill | right |
|---|---|
{rows}
"""


def toy_config(size: int) -> T5Config:
    """Return the toy's shape for a vocabulary of ``size`` pieces; dropout is stated but not used in pre-training."""
    more: dict[str, Any] = {"decoder_start_token_id": 0, "tie_word_embeddings": True}
    return T5Config(
        vocab_size=size, d_model=128, num_heads=4, d_kv=32, d_ff=256, num_layers=3, num_decoder_layers=2,
        dropout_rate=0.1, feed_forward_proj="relu", pad_token_id=0, eos_token_id=1, **more,
    )  # fmt: skip


@torch.no_grad()
def localise(model: T5ForConditionalGeneration) -> None:
    """Let two of the encoder's heads look nearby: a small network is slow to find word order by itself.

    Args:
        model: A toy; head 0 will look to the left, head 3 around, the others keep their table.
    """
    table = model.get_parameter(BIAS)  # (buckets, heads)
    side = table.shape[0] // 2  # the first half of the buckets: to the left, the second: to the right
    steps = torch.arange(side)
    distance = torch.where(steps < 8, steps.float(), 8 * 16 ** ((steps - 8) / 8))
    table[:side, 0], table[side:, 0] = -0.4 * distance, -4.0
    table[:side, 3], table[side:, 3] = -0.5 * distance, -0.5 * distance


class Trainer:
    """The training loop with its state on disk."""

    def __init__(self, out: Path, plan: Plan) -> None:
        """Load or begin.

        Args:
            out: Folder of the run; ``out/checkpoint.pt`` is continued where it exists.
            plan: The curriculum.

        Raises:
            ModelError: The checkpoint belongs to another curriculum.
        """
        torch.manual_seed(plan.seed)
        self.out, self.plan, self.step, self.seconds = out, plan, 0, 0.0
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
        self.model = T5ForConditionalGeneration(toy_config(len(self.tokenizer)))
        self.model.eval()  # dropout off: a network this small has none to spare
        self.curriculum = Curriculum(self.tokenizer, plan)
        embeddings, bias = self.model.shared.weight, self.model.get_parameter(BIAS)
        apart = {id(embeddings), id(bias)}
        others = [parameter for parameter in self.model.parameters() if id(parameter) not in apart]
        groups: list[dict[str, Any]] = [{"params": [embeddings]}, {"params": [bias]}, {"params": others}]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.98), weight_decay=plan.weight_decay)
        if self.state_path.exists():
            self._resume()

    @property
    def state_path(self) -> Path:
        """Where the state lies."""
        return self.out / "checkpoint.pt"

    def _resume(self) -> None:
        state = torch.load(self.state_path, weights_only=True)
        if state["plan"]["seed"] != self.plan.seed or state["plan"]["batch"] != self.plan.batch:
            raise ModelError(f"{self.state_path} belongs to another curriculum ({state['plan']}); use another --out")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        """Write the state atomically."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        partial = self.state_path.with_suffix(".tmp")
        torch.save({**state, "seconds": self.seconds, "plan": asdict(self.plan)}, partial)
        partial.replace(self.state_path)

    def run(self, minutes: float | None, every: float = 60.0) -> dict[str, float]:
        """Train to the end of the plan, or for ``minutes``.

        Args:
            minutes: Wall time after which to stop with what there is; ``None``: no limit.
            every: Seconds between probes.

        Returns:
            The last probe.
        """
        began = last = time.monotonic()
        loss_sum, count = 0.0, 0
        for batch in self.curriculum.batches(self.step):
            loss_sum, count = loss_sum + self._update(batch), count + 1
            now = time.monotonic()
            over = minutes is not None and now - began > minutes * 60
            if now - last > every or over:
                self.seconds += now - last
                scores = self._report(loss_sum / count)
                last, loss_sum, count = time.monotonic(), 0.0, 0
                if over:
                    return scores
        self.seconds += time.monotonic() - last
        return self._report(loss_sum / max(1, count))

    def _update(self, batch: dict[str, Tensor]) -> float:
        if self.step == self.plan.turn:
            localise(self.model)
        times = (self.plan.embeddings, self.plan.bias if self.step >= self.plan.turn else 1.0, 1.0)
        for group, faster in zip(self.optimizer.param_groups, times, strict=True):
            group["lr"] = self.plan.rate(self.step) * faster
        loss = self.model(**batch).loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.item())

    def _report(self, loss: float) -> dict[str, float]:
        scores = probe(self.model, self.curriculum)
        line = " ".join(f"{name} {score:.2f}" for name, score in scores.items())
        print(f"{self.seconds / 60:5.1f} min, step {self.step}/{self.plan.steps}, loss {loss:.3f}: {line}", flush=True)
        self.save()
        check_gates(scores, self.step)
        return scores

    def export(self, scores: dict[str, float]) -> None:
        """Write config, weights, tokenizer, and how they were trained (``training.json``, ``README.md``) to ``out``."""
        self.model.save_pretrained(self.out)
        self.tokenizer.save_pretrained(self.out)
        (self.out / "model.safetensors").chmod(0o644)  # written for its owner alone otherwise
        note: dict[str, Any] = {"synthetic": True, "trained": self.step > 0, "steps": self.step}
        note |= {
            "seconds": round(self.seconds),
            "plan": asdict(self.plan),
            "skills": {name: round(score, 3) for name, score in scores.items()},
        }
        for name, text in (("training.json", json.dumps(note, indent=1) + "\n"), ("README.md", card(note))):
            partial = self.out / f"{name}.tmp"
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.out / name)


def card(note: dict[str, Any]) -> str:
    """Return the README of a toy from its ``training.json``."""
    minutes = note["seconds"] / 60
    state = f"trained, {note['steps']} steps in {minutes:.0f} minutes on one busy CPU core, seed {note['plan']['seed']}"
    rows = "\n".join(f"| {name} | {score:.2f} |" for name, score in note["skills"].items())
    return CARD.format(state=state if note["trained"] else "**not trained** (random weights, a placeholder)", rows=rows)


def main() -> None:
    """Run a curriculum from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, weights, tokenizer and notes")
    parser.add_argument("--minutes", type=float, help="stop after this long, with what there is (resumable)")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(steps=arguments.steps, batch=arguments.batch, seed=arguments.seed)
    trainer = Trainer(arguments.out, plan)
    trainer.export(trainer.run(arguments.minutes))


if __name__ == "__main__":
    main()
