"""Command lines with anything in them: what is valid composes and passes the dry run, the rest is told in lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from mmpt.cli import CONF, main
from mmpt.config.compose import compose, describe, group_options, read_command_line
from mmpt.config.schema import Config
from mmpt.errors import ConfigError, MmptError
from mmpt.training.settings import check as check_config
from mmpt.training.settings import find_problems
from mmpt.utils.untrusted import one_line
from tests.hostile.cases import JSON, ODD_TEXTS, TEXTS, both, check, spoilt_values

GROUPS = group_options([CONF])
FREE = {  # groups whose options go with every other choice, and keys with values that do
    "task": ["boolq", "cb", "copa", "multirc", "rte", "wic"],
    "method": GROUPS["method"],
    "model": ["bundled", "t5_small_random"],
    "optimizer": GROUPS["optimizer"],
    "scheduler": GROUPS["scheduler"],
    "logger": ["none", "csv", "wandb"],
    "cache": GROUPS["cache"],
    "seed": ["0", "7", str(2**32 - 1)],
    "trainer.max_steps": ["1", "1000000"],
    "trainer.max_grad_norm": ["0.5", "1e3"],
    "trainer.per_device_train_batch_size": ["1", "512"],
    "data.max_length": ["1", "8"],
    "data.limit_train": ["1", "null"],
    "data.validation_fraction": ["0.01", "0.99"],
    "evaluation.bootstrap": ["0", "10"],
    "evaluation.confidence": ["0.5", "0.999"],
    "run.dir": ["null", "some/where", "'ünïcödé'"],
    "logger.tags": ["[]", "[a,b]"],
    "model.dtype": ["float32", "bfloat16"],
}
KEYS = st.one_of(
    st.sampled_from([*FREE, *GROUPS, "method.lr.prefix", "task.labels", "task.template", "model.path", "data.dir"]),
    st.sampled_from(["hydra.run.dir", "hydra.job_logging.root", "trainer.optim", "a.b.c", "task@x", "method/lora"]),
    TEXTS,
)


def words() -> st.SearchStrategy[str]:
    odd = st.sampled_from(
        [
            "[",
            "{a:1}",
            "{a:{b:[1,2]}}",
            "[1,[2]]",
            "'a",
            '"',
            "${seed}",
            "${oc.env:HOME}",
            "${oc.decode:x}",
            "${a",
            "???",
        ]
    )
    values = st.one_of(odd, TEXTS, st.integers().map(str), st.floats().map(str), st.sampled_from(["null", "true", ""]))
    signs = st.sampled_from(["", "", "", "+", "++", "~"])
    return st.builds(lambda sign, key, value: f"{sign}{key}={value}", signs, KEYS, values)


def told(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Give the program a dry run; what it says, where it is wrong."""
    code = main([*line, "--cfg", "job"])
    shown = capsys.readouterr()
    assert code in (0, 2) and "Traceback" not in shown.err
    if code == 0:
        assert shown.out.strip() and not shown.err
        return ""
    lines = shown.err.splitlines()
    assert lines and all(text.startswith("error: ") and text.isprintable() for text in lines)
    return shown.err


@both(4, 200)
def test_valid_overrides_compose(cases: int, capsys: pytest.CaptureFixture[str]) -> None:
    def holds(chosen: dict[str, str]) -> None:
        if chosen.get("cache") in ("disk", "ram"):
            chosen.pop("method", None)  # which of them a cache suits is known once the network is
        assert told([f"{key}={value}" for key, value in chosen.items()], capsys) == ""

    choices = {key: st.sampled_from(values) for key, values in FREE.items()}
    check(cases, holds, st.fixed_dictionaries({}, optional=choices), shrink=False)


@both(4, 200)
def test_any_words(
    cases: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def holds(line: list[str]) -> None:
        told(line, capsys)

    check(
        cases,
        holds,
        st.lists(st.one_of(words(), words(), TEXTS.filter(lambda text: text != "")), max_size=3),
        shrink=False,
    )
    assert not list(tmp_path.iterdir())


@both(60, 2000)
def test_any_values(cases: int, config: dict[str, Any]) -> None:
    """Plain data in place of a composed configuration: it is checked into a Config, or into findings."""

    def holds(values: Any) -> None:
        if not isinstance(values, dict):
            return
        problems = find_problems(values)
        assert all(one_line(text) for _, text in problems)
        if problems:
            with pytest.raises(ConfigError):
                check_config(values)
        else:
            assert isinstance(check_config(values), Config)

    check(cases, holds, spoilt_values(config))


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    from omegaconf import OmegaConf

    composed = compose(read_command_line(["logger=none"], CONF).overrides, CONF)
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    return plain


@both(3, 100)
def test_folders_of_configurations(cases: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A --config-dir with anything in it."""
    (tmp_path / "task").mkdir()

    def holds(content: bytes, text: str) -> None:
        (tmp_path / "task" / "odd.yaml").write_bytes(content + text.encode("utf-8", "surrogatepass"))
        told(["--config-dir", str(tmp_path), "task=odd"], capsys)

    task = (CONF / "task" / "rte.yaml").read_bytes()
    odd = [
        b"",
        task,
        b"defaults: [rte, nothing]\n",
        b"defaults: [rte, _self_]\ntemplate: ",
        b"- a\n",
        b"[" * 5000,
        b"\xff",
    ]
    more = [b"# @package _global_\nseed: ", b"name: odd\ntemplate: '{a}'\nlabels: ", b"hydra:\n  run: {dir: x}\n"]
    texts = st.one_of(ODD_TEXTS, TEXTS, JSON.map(repr))
    check(cases, holds, st.sampled_from([*odd, *more, b"\xff"]), texts, shrink=False)


def test_findings_of_defects(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Words that once ended in a traceback, or slipped through."""
    for word in (
        "~logger=5",
        f"+{'a' * 5000}=J",
        f"~{'a' * 5000}",
        f"{'a.' * 300}b=1",
        f"optimizer.eps={'9' * 400}",
        "data.max_length=1000000000000000000000000000000",
        "run.dir=~nobody.is.called.so/x",
        "cache.dir=~nobody.is.called.so",
        f"model.path={'a' * 5000}",
        f"data.dir={'a' * 5000}",
        "logger.project=\udcff",
        "task.template='\0{premise}'",
        "trainer.hub_token=x",
    ):
        assert told([word], capsys), word
    (tmp_path / "task").mkdir()
    whys = {
        b"\xff": "cannot be read",
        b"name: \xe9\n": "cannot be read",
        b"5": "holds '5', not a mapping",
        b"- a": "holds \"['a']\", not a mapping",
    }
    for content, why in whys.items():
        (tmp_path / "task" / "odd.yaml").write_bytes(content)
        assert f"odd.yaml {why}" in told(["--config-dir", str(tmp_path), "task=odd"], capsys)


def test_errors_are_of_ours() -> None:
    assert issubclass(ConfigError, MmptError) and describe(ValueError("a\nb")) == "a; b"
