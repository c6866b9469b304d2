"""peft's own prefix tuning, for ``benchmarks.gemma_compare``: ``python -m benchmarks.gemma_peft KEY=VALUE …``.

The words are those of ``train.py`` with ``method=prefix``. Data, batches, optimizer, schedule, steps and the choice of
the best evaluation are mmpt's, so that only the method differs: peft's prefixes are in all layers, and start from the
keys and values that the model has for ``method.init_text`` (``initialize_kv_prefix_from_text``). Loss and answers come
from the first token of each label word, which follows the last token of the text. States are not cached, and nothing
resumes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from accelerate.utils import set_seed
from peft import PrefixTuningConfig, TaskType, get_peft_model, initialize_kv_prefix_from_text
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmpt.cli.train import config_of
from mmpt.training.batches import Batches
from mmpt.training.evaluate import Evaluator, Predictions, Prepared
from mmpt.training.identity import identify
from mmpt.training.optim import build_optimizer, rate_factor
from mmpt.utils.machine import fast_dtype


class Peer:
    """A model with peft's prefix, and an evaluator whose label words it chooses among."""

    def __init__(self, path: str, dtype: str, tokens: int, text: str, evaluator: Evaluator) -> None:
        """Load a checkpoint, and let its prefix of ``tokens`` start from ``text``."""
        network = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
        config = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=tokens)
        self.model: Any = get_peft_model(network, config)
        initialize_kv_prefix_from_text(self.model, evaluator.tokenizer, text=text, use_chat_template=False)
        self.model.eval()  # it has no dropout
        self.evaluator = evaluator
        self.first = torch.tensor([ids[0] for ids in evaluator.candidates])  # (C,)
        if len(self.first.unique()) < len(self.first):
            raise SystemExit("two label words begin with the same token")
        self.trained = [value for value in self.model.parameters() if value.requires_grad]

    def scores(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B, C) of the label words behind the last token of each text, float32."""
        read = {name: batch[name] for name in ("input_ids", "attention_mask")}
        # the logits of one place, and not by a slice, whose product would copy the vocabulary's matrix for each row
        one = torch.zeros(1, dtype=torch.long)
        states = self.model(**read, output_hidden_states=True, logits_to_keep=one).hidden_states[-1]
        ends = batch["attention_mask"].sum(dim=1) - 1
        wanted = states[torch.arange(len(states)), ends]
        words = self.model.get_base_model().get_output_embeddings().weight[self.first]
        return wanted.float() @ words.float().T

    @torch.no_grad()
    def predict(self, split: Prepared) -> Predictions:
        """Choose a label word for each example."""
        found = torch.zeros(len(split.features), len(self.first))
        for rows, batch in self.evaluator.batches(split, torch.device("cpu")):
            found[rows] = torch.softmax(self.scores(batch), dim=1)
        texts = [self.evaluator.task.words[index] for index in found.argmax(dim=1).tolist()]
        return Predictions(texts, found, None, None)


def main(words: Sequence[str] | None = None) -> int:
    """Train, choose the best evaluation, and write ``result.json`` and ``predictions.jsonl`` into ``run.dir``."""
    config = config_of(list(sys.argv[1:] if words is None else words))
    options, trainer = config.method.options, config.trainer
    assert config.run.dir is not None and config.model.path is not None
    identity = identify(config)
    tokenizer = AutoTokenizer.from_pretrained(config.model.path)
    task, given = identity.task, identity.splits
    evaluator = Evaluator(task, tokenizer, config.evaluation, config.data.max_length, config.seed, "causal")
    parts = {"train": given.train, "validation": given.validation, "test": given.test}
    splits = {name: evaluator.prepare(examples) for name, examples in parts.items()}
    dtype = fast_dtype()[0] if config.model.dtype == "auto" else config.model.dtype
    set_seed(config.seed)
    peer = Peer(config.model.path, dtype, options.num_virtual_tokens, options.init_text, evaluator)
    optimizer = build_optimizer(config.optimizer, {"prefix": peer.trained}, config.method.lr)
    train = splits["train"]
    batches = Batches(list(train), train.longest, evaluator.collate, trainer, config.seed)
    known = peer.first.tolist()
    best, best_step, kept, times = -1.0, 0, list[Tensor](), list[float]()  # the last step is always evaluated
    for step, group in enumerate(batches.steps(0)):
        began = time.perf_counter()
        for entry in optimizer.param_groups:
            warmup = config.scheduler.warmup
            entry["lr"] = entry["initial_lr"] * rate_factor(config.scheduler.name, step, warmup, batches.total_steps)
        for batch in group:
            targets = torch.tensor([known.index(row[0]) for row in batch["labels"].tolist()])
            (F.cross_entropy(peer.scores(batch), targets) / len(group)).backward()
        torch.nn.utils.clip_grad_norm_(peer.trained, trainer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        times.append(1000 * (time.perf_counter() - began))
        if (step + 1) % trainer.eval_steps == 0 or step + 1 == batches.total_steps:
            scored = evaluator.scores(splits["validation"], peer.predict(splits["validation"]), "ranking")[task.primary]
            print(f"step {step + 1}  validation {scored:.3f}  {times[-1]:.0f} ms", flush=True)
            if scored > best:
                best, best_step, kept = scored, step + 1, [value.detach().clone() for value in peer.trained]
    for value, chosen in zip(peer.trained, kept, strict=True):
        value.data.copy_(chosen)
    predicted = {name: peer.predict(splits[name]) for name in ("validation", "test")}
    scores = {name: evaluator.scores(splits[name], found, "ranking") for name, found in predicted.items()}
    size = sum(value.numel() for value in peer.trained)
    result = {"status": "done", "task": task.config.name, "method": "peft_prefix", "seed": config.seed}
    result |= {"data": {name: len(split.features) for name, split in splits.items()}, "metric": task.primary}
    result |= {"scores": scores | evaluator.baselines(train, splits["test"]), "parameters": {"trainable": size}}
    result |= {"dtype": dtype, "timing": {"step_ms_median": sorted(times)[len(times) // 2]}}
    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    result |= {"steps": len(times), "best_step": best_step, "versions": packages}
    identity.directory.mkdir(parents=True, exist_ok=True)
    rows = evaluator.rows(splits["test"], predicted["test"])
    (identity.directory / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (identity.directory / "result.json").write_text(json.dumps(result), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
