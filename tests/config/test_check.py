"""Every mistake is one line that says what, where, what is allowed and what was probably meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmpt.cli import CONF
from mmpt.config.compose import compose
from mmpt.config.schema import CacheConfig, Config, EvaluationConfig, TrainerConfig
from mmpt.config.typed_build import fields_of
from mmpt.errors import ConfigError
from mmpt.methods import names, options_class
from mmpt.training.fingerprint import run_fingerprint
from mmpt.training.settings import check

WRONG = [  # words of the command line, and what the one line must hold
    (["metod=smop"], ["unknown key metod;", 'did you mean "method"?']),
    (["method.num_virtul_tokens=3"], ["unknown key method.num_virtul_tokens;", 'did you mean "num_virtual_tokens"?']),
    (["method=smop", "method.share_type=add"], ["unknown key method.share_type;", "allowed: lr, num_routes"]),
    (["task.hub.revison=x"], ["unknown key task.hub.revison;", 'did you mean "revision"?']),
    (["trainer.max_stps=3"], ["unknown key trainer.max_stps;", 'did you mean "max_steps"?']),
    (["trainer.max_steps=ten"], ['trainer.max_steps must be an integer; got "ten"']),
    (["trainer.max_steps=0"], ["trainer.max_steps=0 must be at least 1"]),
    (["trainer.max_steps=null"], ["trainer.max_steps must be an integer; got null"]),
    (["trainer.fp16=1"], ["trainer.fp16 must be true or false; got 1"]),
    (["trainer.bf16=true", "trainer.fp16=true"], ["exclude each other"]),
    (["trainer.eval_strategy=epochs"], ["choose from: no, steps, epoch", 'did you mean "epoch"?']),
    (["trainer.per_device_train_batch_size=0"], ["trainer.per_device_train_batch_size=0", "at least 1"]),
    (["trainer.num_train_epochs=-1"], ["trainer.num_train_epochs=-1 must not be negative; for a run of a few steps"]),
    (["trainer.save_strategy=best"], ["trainer.save_strategy cannot be set", "trainer.save_steps"]),
    (["trainer.batch_size=8"], ["trainer.batch_size cannot be set: set trainer.per_device_train_batch_size"]),
    (["trainer.activation_checkpointing=true"], ["cannot be set", "gradient_checkpointing=true"]),
    (["trainer.gradient_checkpointing_kwargs={a: 1}"], ["cannot be set", "it needs no options"]),
    (["trainer.neftune_noise_alpha=5"], ["noise on word embeddings is not supported"]),
    (["trainer.fsdp=full_shard"], ["unknown key trainer.fsdp; allowed: per_device_train_batch_size"]),
    (["trainer.label_smoothing_factor=1"], ["trainer.label_smoothing_factor=1 must lie in [0, 1)"]),
    (["trainer.logging_steps=0"], ["trainer.logging_steps=0 is too small"]),
    (["trainer.max_grad_norm=nan"], ["trainer.max_grad_norm=nan must be a finite number"]),
    (["trainer.dataloader_prefetch_factor=2"], ["needs trainer.dataloader_num_workers"]),
    (["trainer.loss=crossentropy"], ["trainer.loss=crossentropy is unknown", 'did you mean "cross_entropy"?']),
    (["trainer.output_dir=x"], ["trainer.output_dir cannot be set", "run.dir"]),
    (["trainer.learning_rate=1"], ["trainer.learning_rate cannot be set", "method.lr"]),
    (["trainer.seed=1"], ["trainer.seed cannot be set", "set seed"]),
    (
        ["method=multmask"],
        ["method=multmask does not exist", "choose from: apt, dept, full, ia3", 'did you mean "multimask"?'],
    ),
    (["method=dept", "data.max_length=300"], ["method.max_length=256", "set method.max_length=300"]),
    (["method=dept", "method.alpha=0"], ["method.alpha=0.0 must be positive"]),
    (["task=null"], ["task=null does not exist"]),
    (["experiment=paper/rt"], ['did you mean "paper/rte"?']),
    (["experiment/paper=rte"], ["write experiment=paper/rte"]),
    (["rte"], ["'rte' is not KEY=VALUE", "did you mean task=rte?"]),
    (["run.dir=a=b"], ["in quotes: 'run.dir=\"a=b\"'"]),
    (["seed=1,2"], ["seed=1,2 names several values", "-m"]),
    (["logger=wandb,csv"], ["add -m to train one run for each, or write 'logger=[wandb,csv]' for a run with all"]),
    (["method.num_virtual_tokens=3.5"], ["method.num_virtual_tokens must be an integer; got 3.5"]),
    (["method.num_virtual_tokens=true"], ["method.num_virtual_tokens must be an integer; got true"]),
    (["method.perturb_router=1"], ["method.perturb_router must be true or false; got 1"]),
    (["method.num_virtual_tokens=0"], ["method.num_virtual_tokens=0"]),
    (["method.top_k=9"], ["method.top_k=9", "method.num_routes=4"]),
    (["method.layout=paper"], ["method.layout=paper", "method.sites=[decoder]"]),
    (["method.share_type=ad"], ["choose from: only, add, prepend, none", 'did you mean "add"?']),
    (["method.sites=[decodr]"], ["method.sites[0]", 'did you mean "decoder"?']),
    (["method.lr.head=1"], ["method.lr.head has no effect with model.architecture=t5", "leave it out"]),
    (["model=bert_base", "method.lr.head=0"], ["method.lr.head=0 must be a positive number"]),
    (["model=bert_base", "evaluation.decoding=[generation]"], ["has a classification head and writes no text"]),
    (["model=minilm", "model.path=no_such_package/model"], ["pip install -c constraints.txt no-such-package"]),
    (["task.pair=[a]"], ["task.pair=['a'] names no field"]),
    (["method.lr.maks=1"], ["unknown key method.lr.maks", 'did you mean "masks"?']),
    (["~method.lr.masks"], ["method.lr.masks is missing"]),
    (["~task.template"], ["task.template is missing; set it in the file of this task, or by task.template=..."]),
    (["trainer.eval_strategy=epochs"], ['steps, epoch; did you mean "epoch"?']),
    (["method.lr.masks=0"], ["method.lr.masks=0 must be a positive number"]),
    (["method.name=foo"], ['method.name="foo" is unknown; allowed: apt, dept']),
    (["~method"], ["method is missing"]),
    (["seed=-1"], ["seed=-1"]),
    (["seed=one"], ['seed must be an integer; got "one"']),
    (["model.revision=123"], ["model.revision must be text; got 123; write it in quotes"]),
    (["model.revision=abc"], ["model.revision=abc has no meaning with model.source=bundled"]),
    (["model=local"], ["model.source=path needs model.path"]),
    (["model=t5_base", "model.path=./nowhere"], ["model.path=./nowhere is no directory"]),
    (["model.path=nowhere"], ["model.path=nowhere is no directory"]),
    (["model.source=random"], ["model.source=random needs model.config"]),
    (["optimizer.weight_decay=-1"], ["optimizer.weight_decay=-1 must not be negative"]),
    (["optimizer.weight_decay=1e300"], ["optimizer.weight_decay=1e+300 is out of range: its size must lie from 1e-30"]),
    (["optimizer.betas=[0.1,0.1]"], ["has no effect with optimizer=adafactor", "add optimizer=adamw"]),
    (["optimizer=adamw", "optimizer.clip_threshold=3"], ["has no effect with optimizer=adamw"]),
    (["optimizer.betas=[0.9]", "optimizer=adamw"], ["optimizer.betas=[0.9] must be two numbers"]),
    (["optimizer.eps=0", "optimizer=adamw"], ["optimizer.eps=0 must be positive"]),
    (["scheduler.name=linar"], ["scheduler.name=linar", 'did you mean "linear"?']),
    (["scheduler.warmup=1.5"], ["scheduler.warmup=1.5"]),
    (["data=local"], ["data=local needs data.dir"]),
    (["model=local", "model.path=no/such/thing"], ["model.path=no/such/thing is no directory"]),
    (["model=local", "model.path=nowhere"], ["model.path=nowhere is no directory"]),
    (["method=prefix", "method.sites=[self]"], ["t5 models have no self attention", "encoder, decoder, cross"]),
    (["model=gpt2", "method.sites=[cross]"], ["gpt2 models have no cross attention; their sites are self"]),
    (["model=gpt2", "method=prefix", "method.layout=paper", "method.sites=[decoder]"], ["published code prefixes T5"]),
    (["model.architecture=deberta-v2"], ["'deberta-v2' models cannot carry prefixes: its attention does not go"]),
    (["model=gemma_2_2b", "model.attention=sdpa"], ["caps its attention scores", "set model.attention=eager"]),
    (["model.architecture=auto"], ["model.architecture=auto cannot be determined with model.source=bundled"]),
    (["method=ia3", "method.feedforward_modules=[wo]"], ["method.target_modules must be one too"]),
    (["data=local", "data.dir=/no/where"], ["data.dir=/no/where is no directory"]),
    (["data.dir=."], ["data.dir=. has no meaning with data=bundled; add data=local"]),
    (["data.max_length=0"], ["data.max_length=0 is too small"]),
    (["data.validation_fraction=1"], ["data.validation_fraction=1 must lie between 0 and 1"]),
    (["data.limit_train=0"], ["data.limit_train=0 is too small"]),
    (["task=wsc"], ["data=bundled has no miniature of task=wsc"]),
    (["data=hub", "task.hub=null"], ["task=rte has no task.hub"]),
    (["task.files.tran=x"], ["task.files.tran=tran", 'did you mean "train"?']),
    (["task.template=hello"], ["task.template='hello'"]),
    (["task.metric=acuracy"], ['did you mean "accuracy"?']),
    (["task.labels.not_entailment=[entailment]"], ["task.labels", "'entailment'"]),
    (["evaluation.decoding=[]"], ["evaluation.decoding=[] must name"]),
    (["evaluation.confidence=1"], ["evaluation.confidence=1 must lie between"]),
    (["evaluation.bootstrap=-1"], ["evaluation.bootstrap=-1 is too small"]),
    (
        ["evaluation.key_cache=static", "method.layout=paper", "method.sites=[decoder]"],
        ["evaluation.key_cache=static does not work with method.layout=paper"],
    ),
    (["evaluation.max_new_tokens=0"], ["evaluation.max_new_tokens=0"]),
    (["evaluation.patience=2", "trainer.eval_strategy=no"], ["evaluation.patience=2", "trainer.eval_strategy=no"]),
    (["logger.tags=[1]"], ["logger.tags[0] must be text"]),
    (["logger=wandb", "logger.mode=of"], ["choose from: auto, online, offline"]),
    (["run.dir=''"], ["run.dir is empty"]),
    (["data=local", "data.dir=''"], ["data.dir is empty; give the folder"]),
    (["model=local", "model.path=''"], ["model.path is empty; give the folder"]),
    (["task=mix", "mix.tasks=[rte,cb]", "task.labels={a: [b]}"], ["task.labels has no effect with task=mix"]),
    (["task=mix", "mix.tasks=[rte,cb]", "mix.sampling=evn"], ['mix.sampling="evn" is not allowed']),
    (["task=mix", "mix.tasks=rte"], ['mix.tasks must be a list; got "rte"']),
    (["task=[mix,rte]"], ["names several options; a run has one: task="]),
    (["method=[prefix,smop]"], ["names several options; a run has one: method="]),
    (["hydra=1"], ["hydra=1 sets no key of Hydra"]),
    (["seed=glob(*)"], ["glob() is not supported; name the options"]),
    (["hydra/launcher=joblib"], ["has an effect on many trials only; add -m"]),
    (["hydra.mode=MULTIRUN"], ["has an effect on many trials only; add -m"]),
    ([f"seed={'1' * 5000}"], ["cannot read seed=1111", "which has 5005 characters"]),
    (["run=5"], ["run must be a mapping with the keys dir, root, overwrite, retry_oom; got 5"]),
]


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=lambda value: " ".join(value) if value else None)
def test_one_line_says_it(words: list[str], parts: list[str], problems_of: Callable[..., list[str]]) -> None:
    problems = problems_of(*words)
    assert len(problems) == 1, problems
    assert "\n" not in problems[0]
    for part in parts:
        assert part in problems[0]


def numbers(kind: Any) -> list[str]:
    """The fields of a dataclass that are numbers, whole ones apart."""
    return [name for name, hint in fields_of(kind).items() if hint is float]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300", "1e-300"])
def test_no_number_is_beyond_what_float32_computes_with(value: str, problems_of: Callable[..., list[str]]) -> None:
    for method in names():
        for option in numbers(options_class(method)):
            (text,) = problems_of(f"method={method}", f"method.{option}={value}")
            assert "must be a finite number" in text or "out of range: its size must lie" in text
    groups = {"trainer": TrainerConfig, "evaluation": EvaluationConfig, "cache": CacheConfig}
    for group, kind in groups.items():
        for option in numbers(kind):
            (text,) = problems_of(f"{group}.{option}={value}")
            assert text.startswith(f"{group}.{option}={value.replace('1e3', '1e+3')} ")


def test_all_problems_are_reported_together() -> None:
    words = ["++trainer.max_stps=3", "++seed=x", "++evaluation.confidence=2", "++data.name=local", "++method.top_k=9"]
    with pytest.raises(ConfigError) as raised:
        check(compose(words, CONF))
    assert len(raised.value.problems) == len(words)


def test_free_text_has_no_label_words_for_a_loss(tmp_path: Path) -> None:
    values = compose(["data=local", f"data.dir={tmp_path}", "trainer.loss=label_ranking"], CONF)
    values.task.labels, values.task.metric, values.evaluation.decoding = {}, "exact_match", ["generation"]
    with pytest.raises(ConfigError, match=r"trainer\.loss=label_ranking needs labels"):
        check(values)


def test_free_text_has_nothing_to_rank(tmp_path: Path) -> None:
    values = compose(["data=local", f"data.dir={tmp_path}"], CONF)
    values.task.labels = {}
    values.task.metric = "exact_match"
    with pytest.raises(ConfigError, match=r"evaluation\.decoding=\[generation\]"):
        check(values)
    values.evaluation.decoding = ["generation"]
    assert check(values).task.labels == {}


def test_a_field_of_another_group_that_is_wrong_brings_no_false_findings(problems_of: Callable[..., list[str]]) -> None:
    problems = problems_of("model=t5_base", "model.source=locl")
    assert problems == ['model.source="locl" is not allowed; choose from: bundled, hub, path, package, random']


@pytest.mark.parametrize("model", ["bundled", "t5_base", "t5_small_random"])
def test_a_directory_given_as_model_path_is_taken(model: str, tmp_path: Path, config_of: Callable[..., Config]) -> None:
    chosen = config_of(f"model={model}", f"model.path={tmp_path}").model
    assert (chosen.source, chosen.path, chosen.revision) == ("path", str(tmp_path), None)


def test_a_local_model_is_a_directory_or_a_name_on_the_hub(tmp_path: Path, config_of: Callable[..., Config]) -> None:
    named = config_of("model=local", "model.path=google/some-model", "method=prefix")
    assert (named.model.source, named.model.architecture, named.method.options.sites) == ("hub", "auto", "auto")
    (tmp_path / "config.json").write_text('{"model_type": "opt"}', encoding="utf-8")
    found = config_of("model=local", f"model.path={tmp_path}", "method=prefix")
    assert (found.model.source, found.model.architecture, found.method.options.sites) == ("path", "opt", ["self"])


def test_sites_follow_the_architecture(config_of: Callable[..., Config]) -> None:
    sites = {name: config_of(f"model={name}", "method=prefix").method.options.sites for name in ("bundled", "gpt2")}
    assert sites == {"bundled": ["decoder", "cross"], "gpt2": ["self"]}
    spelt = config_of("method=prefix", "method.sites=[decoder,cross]")
    assert run_fingerprint(spelt) == run_fingerprint(config_of("method=prefix"))


def test_options_left_out_are_filled_in() -> None:
    config = check(compose(["~method.top_k", "~evaluation.bootstrap"], CONF))
    assert (config.method.options.top_k, config.evaluation.bootstrap) == (1, 1000)


def test_numbers_become_the_type_that_is_stated(config_of: Callable[..., Config]) -> None:
    rate = config_of("method.lr.prefix=1").method.lr["prefix"]
    assert isinstance(rate, float)


def test_seed_zero_is_a_seed(config_of: Callable[..., Config]) -> None:
    assert config_of("seed=0").seed == 0


@pytest.mark.parametrize(
    "word",
    [
        "trainer.max_steps=20",
        "trainer.num_train_epochs=2.5",
        "trainer.tf32=null",
        "trainer.eval_steps=null",
        "trainer.loss=label_ranking",
        "trainer.gradient_checkpointing=true",
    ],
)
def test_trainer_accepts(word: str, problems_of: Callable[..., list[str]]) -> None:
    assert problems_of(word) == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("cache=disc", "cache=disc does not exist; choose from: auto, disk, off, ram"),
        ("cache.mode=always", 'cache.mode="always" is not allowed; choose from: auto, ram, disk, off'),
        ("cache.max_gb=0", "cache.max_gb=0 must be positive; cache=ram uses no disk"),
        ("cache.dir=''", "cache.dir is empty; give a folder or null"),
        ("cache.dtype=int8", 'cache.dtype="int8" is not allowed; choose from: model, float32, bfloat16, float16'),
    ],
)
def test_cache_settings_that_cannot_be(word: str, expected: str, problems_of: Callable[..., list[str]]) -> None:
    assert any(text.startswith(expected) for text in problems_of(word))
