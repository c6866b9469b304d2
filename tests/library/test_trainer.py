"""transformers' Trainer, pipelines, accelerate and DDP on adapted models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
    default_data_collator,
    pipeline,
)

import mmpt
from mmpt.bundled import MODEL_DIR
from tests.library.plain import batch, model
from tests.tiny_encoders import checkpoint
from tests.tolerance import assert_close, terms_of

QUIET: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_total_limit": 1}


def rows(family: str) -> Dataset:
    return Dataset.from_dict({name: value.tolist() for name, value in batch(family, 8).items()})


@pytest.mark.parametrize("family", ["t5", "llama", "bert"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_trainer_trains_evaluates_saves_and_takes_the_best(family: str, checkpointing: bool, tmp_path: Path) -> None:
    found = mmpt.adapt(model(family), mmpt.MultiMask(num_virtual_tokens=4), seed=1)
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=0.05,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        gradient_checkpointing=checkpointing,
        **QUIET,
    )
    frozen = {name: value.clone() for name, value in found.named_parameters() if not value.requires_grad}
    groups = torch.optim.AdamW(mmpt.parameter_groups(found, lr=0.05))
    data = rows(family)
    trainer = Trainer(
        found,
        arguments,
        default_data_collator,
        data,
        data,
        optimizers=(groups, None),  # type: ignore[arg-type]
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    assert after < before
    best = min(entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry)
    assert after == pytest.approx(best, abs=1e-5)
    assert all(torch.equal(value, found.get_parameter(name)) for name, value in frozen.items())
    resumed = Trainer(found, arguments, default_data_collator, data, data)
    assert any(name.startswith("mmpt_adapters.default.") for name in resumed.model.state_dict())


def test_an_accumulated_batch_counts_load_balance_once(tmp_path: Path) -> None:
    losses = []
    for size in (8, 2):
        options = mmpt.MultiMask(num_virtual_tokens=4, load_balance=1.0, perturb_router=False, router_dropout=0.0)
        found = mmpt.adapt(model("llama"), options, seed=1)
        arguments = TrainingArguments(
            str(tmp_path / str(size)),
            max_steps=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
            logging_steps=1,
            save_strategy="no",
            **QUIET,
        )
        trainer = Trainer(found, arguments, train_dataset=rows("llama"), data_collator=default_data_collator)
        losses.append(trainer.train().training_loss)
    assert losses[1] == pytest.approx(losses[0], abs=0.1)  # routes are balanced by batch; four times 1 were 3 more


def test_seq2seq_trainer_generates_and_the_result_is_a_pipeline(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    found = mmpt.adapt(AutoModelForSeq2SeqLM.from_pretrained(MODEL_DIR), mmpt.Prefix(), seed=1)
    words = [("a cat sat", "entailment"), ("a dog ran", "not_entailment")] * 4
    data = [{**tokenizer(text), "labels": tokenizer(label)["input_ids"]} for text, label in words]
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path), max_steps=2, predict_with_generate=True, generation_max_length=8, save_strategy="no", **QUIET
    )
    seen: list[int] = []

    def metrics(predictions: Any) -> dict[str, float]:
        seen.append(predictions.predictions.shape[1])
        return {"length": float(seen[-1])}

    collator = DataCollatorForSeq2Seq(tokenizer, found)
    trainer = Seq2SeqTrainer(
        found,
        arguments,
        collator,
        data,
        data,
        processing_class=tokenizer,
        compute_metrics=metrics,  # type: ignore[arg-type]
    )
    trainer.train()
    assert trainer.evaluate()["eval_length"] > 0 and seen
    found.eval()
    given = tokenizer(["a cat sat"], return_tensors="pt")
    wanted = tokenizer.batch_decode(found.generate(**given, max_new_tokens=5), skip_special_tokens=True)
    assert isinstance(wanted[0], str)


def test_pipelines_run_adapted_models(tmp_path: Path) -> None:
    from mmpt.bundled import MODEL_DIR as directory

    tokenizer = AutoTokenizer.from_pretrained(directory)
    for method in (mmpt.MultiMask(), mmpt.SMoP()):
        writer = mmpt.adapt(model("llama", vocab_size=len(tokenizer)), method, seed=1)
        writes = pipeline("text-generation", model=writer, tokenizer=tokenizer, device="cpu")
        (out,) = writes("a cat sat", max_new_tokens=3, do_sample=False)
        assert out["generated_text"].startswith("a cat sat")
    words = AutoTokenizer.from_pretrained(checkpoint(tmp_path, ["a", "cat", "sat"]))
    classifier = mmpt.adapt(model("bert", vocab_size=len(words)), mmpt.Prompt(), seed=1)
    (found,) = pipeline("text-classification", model=classifier, tokenizer=words, device="cpu")("a cat sat")
    assert found["label"].startswith("LABEL_") and 0 <= found["score"] <= 1


DDP = """
import json, pathlib, sys, mmpt
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.library.plain import batch, model
dist.init_process_group("gloo")
rank = dist.get_rank()
found = mmpt.adapt(model("t5"), mmpt.MultiMask(perturb_router=False, router_dropout=0.0), seed=1)
wrapped = DistributedDataParallel(found)
given = {name: value[2 * rank : 2 * rank + 2] for name, value in batch("t5").items()}
wrapped(**given).loss.backward()
state = {name: value.grad.tolist() for name, value in found.named_parameters() if value.grad is not None}
if rank == 0:
    pathlib.Path(sys.argv[1]).write_text(json.dumps(state))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29533"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(script), str(tmp_path / "out.json")], check=True, env=environment, timeout=240)
    found = json.loads((tmp_path / "out.json").read_text())
    alone = mmpt.adapt(model("t5"), mmpt.MultiMask(perturb_router=False, router_dropout=0.0), seed=1)
    for rank in range(2):
        (alone(**{name: value[2 * rank : 2 * rank + 2] for name, value in batch("t5").items()}).loss / 2).backward()
    for name, value in alone.named_parameters():
        if value.grad is not None:
            assert_close(torch.tensor(found[name]), value.grad, terms_of(alone, batch("t5")["input_ids"].numel()), name)
