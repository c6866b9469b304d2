"""docs/own_method.md, run as it stands, and what a method file can't do."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmpt.cli import main
from mmpt.cli.app import main as program
from mmpt.methods import options_class, parse
from mmpt.models.engine import build_engine
from mmpt.models.method_check import report
from mmpt.training.settings import find_problems
from mmpt.utils.extensions import METHOD_FOLDERS, VARIABLE, add_folder
from tests.commands import predict as predict_main
from tests.rows import assert_rows_are_independent
from tests.tiny import adapted, backbone, batch
from tests.tolerance import assert_close, terms_of

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ["task=rte", "logger=none", "--cfg", "job"]


def block(language: str, index: int = 0) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/own_method.md").read_text(encoding="utf-8"), re.S)
    return str(found[index])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's folder."""
    for variable in (VARIABLE, METHOD_FOLDERS):
        monkeypatch.setenv(variable, "")
    place = tmp_path / "mine" / "method"
    place.mkdir(parents=True)
    for language, suffix in (("python", "py"), ("yaml", "yaml")):
        (place / f"low_rank_prompt.{suffix}").write_text(block(language), encoding="utf-8")
    return place


def test_the_example_trains_and_predicts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its three lines of shell; what they start as programs is called here instead."""
    directory = folder.parents[1]
    monkeypatch.chdir(directory)
    train, rows, predict = block("bash").replace("\\\n", "").splitlines()
    assert main(shlex.split(train)[2:]) == 0
    subprocess.run(["bash", "-c", rows], check=True)
    setting, _, _, program, *words = shlex.split(predict)
    monkeypatch.setenv(*setting.split("="))
    assert setting.startswith(VARIABLE) and program == "mmpt.predict"
    capsys.readouterr()
    assert predict_main(words) == 0
    result = json.loads((directory / "runs/low_rank/result.json").read_text(encoding="utf-8"))
    assert result["method"] == "low_rank_prompt" and result["steps"] == 6
    assert result["parameters"]["groups"] == {"factors": 2 * (10 + 128)}
    assert json.loads(capsys.readouterr().out)["prediction"] in ("entailment", "not_entailment")


def test_its_own_attention_is_exact_everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of ``attend``: at temperature one it is the backbone itself, and absorbed it is the same function."""
    monkeypatch.setenv(VARIABLE, str(folder.parent))
    for language, suffix in (("python", "py"), ("yaml", "yaml")):
        (folder / f"temperature.{suffix}").write_text(block(language, 1), encoding="utf-8")
    assert report("low_rank_prompt") == []
    assert program(["methods", "check", "temperature", "--config-dir", str(folder.parent)]) == 0
    found = {}
    for way in ("absorbed", "projected"):
        built = replace(backbone(), cross_attention=way)
        model = build_engine(built, parse("temperature", {})).eval()
        with torch.no_grad():
            plain = adapted("full").eval().logits(*batch())
            assert_close(model.logits(*batch()), plain, terms_of(built.model))
            for parameter in model.method.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
            found[way] = model.logits(*batch())
    assert_close(found["absorbed"], found["projected"], terms_of(model))
    assert_rows_are_independent(model)


def test_its_options_are_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config-dir", str(folder.parent), "method=low_rank_prompt"]
    assert main([*words, *SHOWN]) == 0
    assert main([*words, "method.rank=11", *SHOWN]) == 2
    assert "method.rank=11 must lie from 1 to method.num_virtual_tokens=10" in capsys.readouterr().err
    assert main([*words, "method.rnak=2", *SHOWN]) == 2
    assert 'did you mean "rank"' in capsys.readouterr().err


def test_a_configuration_alone_executes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it says as a name: only files in folders that the user named are ever read."""
    touched = folder / "touched"
    (folder / "evil.py").write_text(f"open({str(touched)!r}, 'w')", encoding="utf-8")
    monkeypatch.chdir(folder)
    names = ["evil", "method.evil", "../method/evil", str(folder / "evil"), "os", "mmpt.cli", "", 3, ["evil"]]
    for name in names:
        for extra in ({}, {"module": "evil", "_target_": "evil.run", "path": str(folder / "evil.py")}):
            problems = find_problems({"method": {"name": name, **extra}})
            assert any("is unknown" in text for _, text in problems), name
    assert not touched.exists()
    add_folder(folder.parent)
    for name in names[1:]:
        assert any("is unknown" in text for _, text in find_problems({"method": {"name": name}})), name
    assert not touched.exists()
    assert any("must set OPTIONS" in text for _, text in find_problems({"method": {"name": "evil"}}))
    assert touched.exists()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("import nothing_like_this", "cannot be imported: ModuleNotFoundError"),
        ("OPTIONS = int", "must set OPTIONS"),
        ("from mmpt.methods.prompt.options import Prompt\nOPTIONS = Prompt", "must set METHOD"),
        (
            "from mmpt.methods.prompt.options import Prompt\nfrom mmpt.methods.base import Method\n"
            "OPTIONS, METHOD = Prompt, Method",
            'its options have name = "prompt"; set name: ClassVar[str] = "mistaken"',
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text: str, word: str, folder: Path) -> None:
    add_folder(folder.parent)
    (folder / "mistaken.py").write_text(text, encoding="utf-8")
    (found,) = [text for key, text in find_problems({"method": {"name": "mistaken"}}) if key == "method.name"]
    assert word in found and str(folder / "mistaken.py") in found


def test_names_of_ours_cannot_be_taken(folder: Path) -> None:
    add_folder(folder.parent)
    (folder / "prefix.py").write_text("raise SystemExit", encoding="utf-8")
    assert options_class("prefix").name == "prefix"
