"""peft's prefix tuning on a tiny decoder: its scores are the network's, and a run writes what the comparison reads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer

from benchmarks.gemma_peft import Peer, main
from mmpt.cli.train import config_of
from mmpt.training.evaluate import Evaluator
from mmpt.training.identity import identify
from tests.training.test_model_kinds import directory_of

WORDS = ["task=rte", "model=local", "method=prefix", "method.num_virtual_tokens=3", "method.init=text"]
WORDS += ["method.init_text='true or false'", "data.limit_train=24", "data.limit_validation=8", "data.limit_test=9"]
WORDS += ["trainer.max_steps=4", "trainer.eval_strategy=steps", "trainer.eval_steps=2", "trainer.loss=label_ranking"]


def test_scores_are_the_logits_behind_each_text(tmp_path: Path) -> None:
    config = config_of([*WORDS, f"model.path='{directory_of('llama', tmp_path)}'"])
    path, identity = str(config.model.path), identify(config)
    tokenizer = AutoTokenizer.from_pretrained(path)
    evaluator = Evaluator(identity.task, tokenizer, config.evaluation, config.data.max_length, 1, "causal")
    peer = Peer(path, "float32", 3, "true or false", evaluator)
    (_, batch), *_ = evaluator.batches(evaluator.prepare(identity.splits.test), torch.device("cpu"))
    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ends = read["attention_mask"].sum(dim=1) - 1
    assert len(ends.unique()) > 1
    whole = peer.model(**read).logits[torch.arange(len(ends)), ends][:, peer.first]
    torch.testing.assert_close(peer.scores(batch), whole)
    peer.scores(batch)[:, 0].sum().backward()
    (prefix,) = peer.trained
    assert prefix.grad is not None and prefix.grad.count_nonzero() == prefix.numel()


def test_a_run_writes_what_the_comparison_reads(tmp_path: Path) -> None:
    words = [*WORDS, f"model.path='{directory_of('llama', tmp_path)}'", f"run.dir='{tmp_path / 'run'}'"]
    assert main(words) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    lines = (tmp_path / "run" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    right = [json.loads(line)["correct"] for line in lines]
    assert result["scores"]["test"][result["metric"]] == sum(right) / len(right) and len(right) == 9
    assert (result["steps"], result["best_step"] in (2, 4), result["method"]) == (4, True, "peft_prefix")
