"""Training, ranking and generation agree on the tokens that end, start and pad a text, whatever a checkpoint states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

from mmpt.attention.architectures import architecture_of
from mmpt.config.schema import EvaluationConfig, ModelConfig, TaskConfig
from mmpt.data.special_tokens import answers, inner_end
from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError, ModelError
from mmpt.methods import parse
from mmpt.models.backbone import CLASSES, Backbone, load_backbone
from mmpt.models.engine import build_engine
from mmpt.training.evaluate import Evaluator
from tests.tiny import SHAPE, SHAPES

WORDS = ["<pad>", "</s>", "<s>", "<unk>", "<turn>", "yes", "no", "a", "b", "c"]
PAD, END, BEGIN, TURN, YES = 0, 1, 2, 4, 5


def checkpoint(
    folder: Path,
    model_type: str,
    tokens: dict[str, str],
    config: dict[str, Any],
    generation: dict[str, Any],
    closing: str = "$A",
) -> Path:
    """A tiny random model with the special tokens that tokenizer, config.json and generation_config.json are given."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single=closing, special_tokens=[("</s>", END), ("<s>", BEGIN)])
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **tokens).save_pretrained(folder)
    shape = {name: value for name, value in SHAPES.get(model_type, SHAPE).items() if "token_id" not in name}
    if model_type != "gpt2":
        shape |= {"pad_token_id": 0}
    shape |= {"vocab_size": 12, "eos_token_id": None, "bos_token_id": None, **config}
    torch.manual_seed(0)
    CLASSES[architecture_of(model_type).kind].from_config(AutoConfig.for_model(model_type, **shape)).save_pretrained(
        folder
    )
    if config.get("decoder_start_token_id") is None:
        stated = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({k: v for k, v in stated.items() if k[:13] != "decoder_start"}))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def loaded(folder: Path, architecture: str) -> Backbone:
    return load_backbone(ModelConfig("tiny", "path", path=str(folder), architecture=architecture))


def evaluator(backbone: Backbone, labels: tuple[str, ...] = ("yes", "no"), **more: Any) -> Evaluator:
    task = Task(TaskConfig("own", "{x}", labels={word: [] for word in labels}))
    return Evaluator(task, backbone.tokenizer, EvaluationConfig(["generation"], **more), 16, 0, backbone.kind)


FULL = {"eos_token": "</s>", "pad_token": "<pad>"}
CASES = {
    "tokenizer without end, a list in the generation config": ({"pad_token": "<pad>"}, {}, {"eos_token_id": [4, 1]}, 4),
    "tokenizer without padding": ({"eos_token": "</s>"}, {}, {}, 1),
    "another end in config.json": (FULL, {"eos_token_id": 4}, {}, 1),
    "an end of a turn in the tokenizer": ({"eos_token": "<turn>"}, {"eos_token_id": 1}, {"eos_token_id": [1, 4]}, 4),
    "an end beyond the vocabulary": (FULL, {"eos_token_id": 50256}, {}, 1),
    "padding that ends texts": ({"eos_token": "</s>", "pad_token": "</s>"}, {}, {"pad_token_id": 1}, 1),
    "a text that must be long": (FULL, {}, {"eos_token_id": 1, "min_length": 6, "forced_eos_token_id": 4}, 1),
}


@pytest.mark.parametrize("closing", ["$A", "$A </s>", "<s> $A"])
@pytest.mark.parametrize("model_type", ["t5", "bart", "gpt2", "llama"])
@pytest.mark.parametrize(("tokens", "config", "generation", "end"), CASES.values(), ids=CASES)
def test_what_a_target_ends_with_stops_generation(
    tmp_path: Path,
    model_type: str,
    tokens: dict[str, str],
    config: dict[str, Any],
    generation: dict[str, Any],
    end: int,
    closing: str,
) -> None:
    """Greedy generation of a model that always prefers the next token of "yes" writes it, and stops there."""
    start = {"decoder_start_token_id": 0} if model_type in ("t5", "bart") else {}
    backbone = loaded(checkpoint(tmp_path, model_type, tokens, {**start, **config}, generation, closing), model_type)
    judge = evaluator(backbone)
    wanted = judge.candidates[0]
    end = END if closing == "$A </s>" else end  # what the tokenizer adds to a text ends it
    assert wanted[-1] == end and wanted.count(end) == 1 and wanted[-2] == YES
    split = judge.prepare([Example(str(n), " ".join("abc"[: n + 1]), "yes", 0, None) for n in range(3)])
    assert all(feature["labels"] == wanted for feature in split.features)
    if backbone.kind == "causal":
        assert all(feature["input_ids"][-1] in range(7, 10) for feature in split.features), "sources stay open"
    model = build_engine(backbone, parse("prefix", {"num_virtual_tokens": 2}))
    judge.check_longest(model, split)

    def write(module: Any, args: Any, logits: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        token = wanted[min(len(steps), len(wanted)) - 1]
        return torch.zeros_like(logits).index_fill(-1, torch.tensor([token]), 9.0)

    steps: list[int] = []
    handle = backbone.model.get_output_embeddings().register_forward_hook(write)
    predictions = judge.predict(model, split, "generation") if backbone.kind != "causal" else None
    handle.remove()
    if predictions is not None:
        assert len(steps) >= len(wanted) and predictions.texts[0] == "yes"
    stops = backbone.model.generation_config.eos_token_id
    assert end in (stops if isinstance(stops, list) else [stops])
    assert isinstance(backbone.model.generation_config.pad_token_id, int)


def test_padding_of_generation_is_no_part_of_an_answer(tmp_path: Path) -> None:
    backbone = loaded(checkpoint(tmp_path, "llama", FULL, {}, {"eos_token_id": [1, 4]}), "llama")
    ids = torch.tensor([[YES, TURN, 7, 7], [6, END, 0, 0], [7, 8, 9, 7]])
    assert answers(backbone.tokenizer, backbone.model, ids) == ["yes", "no", "a b c a"]
    assert inner_end(backbone.model, [7, TURN, END]) and not inner_end(backbone.model, [7, END])


@pytest.mark.parametrize(
    ("model_type", "tokens", "config", "generation", "message"),
    [
        ("gpt2", {}, {}, {}, "names a token that ends a text; set eos_token"),
        ("gpt2", {}, {"eos_token_id": 50256}, {}, "names a token that ends a text"),
        ("t5", FULL, {"decoder_start_token_id": 0}, {"decoder_start_token_id": 2}, r"different tokens \(0, 2\)"),
        ("t5", FULL, {"decoder_start_token_id": 99}, {}, "decoder_start_token_id=99 is beyond the embeddings' 12 rows"),
        ("gpt2", {**FULL, "mask_token": "<m1>", "sep_token": "<m2>", "cls_token": "<m3>"}, {}, {}, "up to 12"),
    ],
)
def test_what_cannot_be_reconciled_is_refused(
    tmp_path: Path,
    model_type: str,
    tokens: dict[str, str],
    config: dict[str, Any],
    generation: dict[str, Any],
    message: str,
) -> None:
    folder = checkpoint(tmp_path, model_type, tokens, config, generation)
    with pytest.raises(ModelError, match=message) as caught:
        loaded(folder, model_type)
    assert "\n" not in str(caught.value)


def test_a_t5_decoder_starts_with_padding(tmp_path: Path) -> None:
    backbone = loaded(checkpoint(tmp_path, "t5", FULL, {"decoder_start_token_id": None}, {}), "t5")
    assert backbone.model.config.decoder_start_token_id == backbone.model.generation_config.decoder_start_token_id == 0


def test_a_label_at_which_generation_stops_is_refused(tmp_path: Path) -> None:
    backbone = loaded(checkpoint(tmp_path, "gpt2", FULL, {}, {"eos_token_id": [1, 4]}), "gpt2")
    judge = evaluator(backbone, ("yes", "<turn> no"))
    model = build_engine(backbone, parse("prefix", {"num_virtual_tokens": 2}))
    with pytest.raises(DataError, match='the label "<turn> no" has a token at which the model stops writing'):
        judge.check_longest(model, judge.prepare([Example("1", "a", "yes", 0, None)]))
