"""Whole runs on other architectures than T5, from a directory whose kind is found out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

import mmpt
from mmpt.bundled import MODEL_DIR
from mmpt.cli import main
from mmpt.config.compose import compose
from mmpt.data.encode import Continuation
from mmpt.data.sources import load_splits
from mmpt.data.tasks import Example, Task
from mmpt.errors import DataError
from mmpt.training.settings import check
from tests.tiny import backbone

CONF = Path(__file__).parents[2] / "conf"
SMALL = ["data.limit_train=48", "data.limit_validation=16", "data.limit_test=16", "logger=none", "model=local"]
SHORT = [
    *SMALL,
    "trainer.max_steps=4",
    "trainer.eval_strategy=steps",
    "trainer.eval_steps=2",
    "evaluation.bootstrap=50",
]
ATTENTION = {"gemma2": ["model.attention=eager"]}  # it has no sdpa
LONGEST = {"qwen2": 14}  # tokens of a label: its own tokenizer class reads the bundled vocabulary letter by letter
POSITIONS = {"gpt2": {"n_positions": 320}}


def directory_of(model_type: str, root: Path) -> Path:
    """A tiny checkpoint with the bundled tokenizer, as save_pretrained writes it."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    shape = POSITIONS.get(model_type, {"max_position_embeddings": 320})
    model = backbone(model_type, vocab_size=len(tokenizer), **shape).model
    model.set_attn_implementation("eager" if model_type in ATTENTION else "sdpa")
    place = root / f"tiny-{model_type}"
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def run(place: Path, directory: Path, *words: str) -> dict[str, Any]:
    assert main([f"run.dir='{directory}'", *SHORT, f"model.path='{place}'", *words]) == 0
    return json.loads((directory / "result.json").read_text(encoding="utf-8"))


def predictions(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


FAST = ["llama"]
SLOW = ["bart", "pegasus", "gpt2", "opt", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"]


@pytest.mark.parametrize("model_type", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_run_trains_ranks_generates_and_is_loaded_to_the_bit(
    model_type: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, directory = directory_of(model_type, tmp_path), tmp_path / "run"
    longest = f"evaluation.max_new_tokens={LONGEST.get(model_type, 4)}"
    words = ["evaluation.decoding=[ranking,generation]", longest, *ATTENTION.get(model_type, [])]
    result = run(place, directory, *words)
    assert {"validation", "test", "validation_generation", "test_generation"} <= set(result["scores"])
    stated = json.loads((directory / "adapter" / "adapter.json").read_text(encoding="utf-8"))
    assert stated["backbone"]["architecture"] == model_type
    seq2seq = model_type in ("bart", "pegasus")
    assert stated["method"]["options"]["sites"] == (["decoder", "cross"] if seq2seq else ["self"])
    told = capsys.readouterr().out
    assert ("encoder: ran once" in told) is seq2seq
    assert ("decoder: runs in every step (method=multimask has a prefix in every layer" in told) is not seq2seq
    config = check(yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8")))
    loaded = mmpt.load(directory)
    split = loaded.evaluator.prepare(load_splits(Task(config.task), config.data, config.seed).test)
    found = loaded.evaluator.rows(split, loaded.evaluator.predict(loaded.model, split, "ranking"))
    assert found == predictions(directory)


@pytest.mark.parametrize("model_type", [pytest.param("gpt2", marks=pytest.mark.slow), "qwen3"])
def test_prefixes_in_the_last_layers_go_on_from_cached_states(
    model_type: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMPT_CACHE", str(tmp_path / "cache"))
    place, found, told = directory_of(model_type, tmp_path), [], []
    words = ["method.layers=last_1", "trainer.logging_steps=1", "evaluation.decoding=[ranking,generation]"]
    for name, mode in (("ran", "cache=disk"), ("read", "cache=disk"), ("without", "cache=off")):
        scores = run(place, tmp_path / name, *words, mode, "evaluation.max_new_tokens=3")["scores"]
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        figures = [line[key] for line in lines for key in ("train/loss", "validation/loss") if key in line]
        found.append((scores, figures, [row["prediction"] for row in predictions(tmp_path / name)]))
        told += [line for line in capsys.readouterr().out.splitlines() if line.startswith("decoder:")]
    assert told[0].startswith("decoder: ran once up to layer 2 of 3, ")
    assert told[1].startswith("decoder: read from the cache up to layer 2 of 3, ")
    assert told[2] == "decoder: runs in every step (cache=off)"
    assert found[0] == found[1]
    assert found[2][1] == pytest.approx(found[0][1], abs=1e-4) and len(found[0][1]) == 6
    assert (found[2][0], found[2][2]) == (found[0][0], found[0][2])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["smop", "dept", "lora", "ia3", "prefix", "full"])
@pytest.mark.parametrize("model_type", ["bart", "gpt2", "gemma3_text"])
def test_every_method_runs(model_type: str, method: str, tmp_path: Path) -> None:
    run(directory_of(model_type, tmp_path), tmp_path / "run", f"method={method}")


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["t5", "bart", "qwen3"])
def test_gradient_checkpointing_changes_no_step(model_type: str, tmp_path: Path) -> None:
    place = MODEL_DIR if model_type == "t5" else directory_of(model_type, tmp_path)
    losses = []
    for wish in ("true", "false"):
        directory = tmp_path / wish
        run(Path(place), directory, f"trainer.gradient_checkpointing={wish}", "trainer.logging_steps=1", "cache=off")
        lines = map(json.loads, (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        losses.append([line["train/loss"] for line in lines if "train/loss" in line])
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_sites_that_the_directory_has_not_are_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    words = [*SMALL, f"model.path='{tmp_path}'", f"run.dir='{tmp_path / 'run'}'"]
    assert main([*words, "method.sites=[decoder]"]) != 0
    assert "gpt2 models have no decoder attention; their sites are self" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    assert main(words) != 0
    assert "'deberta-v2' models cannot carry prefixes: its attention does not go through" in capsys.readouterr().err


def test_a_label_goes_on_with_the_text_after_a_space() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    task = Task(check(compose(["model=bundled"], CONF)).task)
    reading = Continuation(task, tokenizer, 64)
    assert [tokenizer.decode(ids[:-1]).strip() for ids in reading.candidates] == list(task.words)
    assert all(ids[-1] == tokenizer.eos_token_id for ids in reading.candidates)
    whole = tokenizer("a entailment", add_special_tokens=False)["input_ids"]
    assert reading.target("entailment")[:-1] == whole[1:]


def test_continuations_are_all_labels_and_a_target_that_was_cut() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    task = Task(check(compose(["model=bundled", "task.template='{premise} {hypothesis}'"], CONF)).task)
    examples = [Example("1", "some words", "not_entailment", 1, None), Example("2", "others", None, None, None)]
    for longest, more in ((64, 0), (2, 1)):
        reading = Continuation(task, tokenizer, longest)
        assert max(map(len, reading.candidates)) > 2
        (labelled, other) = reading.encode(examples).features
        choices = [ids[:-1] for ids in reading.candidates]
        assert labelled["continuations"] == [*choices, *[labelled["labels"][:-1]] * more]
        assert other["continuations"] == choices


def test_a_tokenizer_that_joins_a_label_to_the_text_is_refused() -> None:
    class Joining:
        eos_token_id, unk_token_id = 1, 0

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [len(text)]}

    task = Task(check(compose(["model=bundled", "task=boolq"], CONF)).task)
    with pytest.raises(DataError, match='no border before "False"'):
        Continuation(task, Joining(), 64)  # type: ignore[arg-type]
