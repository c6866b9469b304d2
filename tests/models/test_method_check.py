"""``mmpt methods check``: methods of ours pass, and each mistake that a user's method can make is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpt.cli.methods import check
from mmpt.errors import ConfigError
from mmpt.methods import names
from mmpt.models.method_check import report
from mmpt.utils import extensions

METHOD = """
from dataclasses import dataclass
from typing import ClassVar
import torch
from torch import nn
from mmpt.attention.prefix import KeyValue
from mmpt.methods.base import Contribution, Method
from mmpt.methods.options import MethodOptions

@dataclass(frozen=True)
class Options(MethodOptions):
    name: ClassVar[str] = "mine"
    GROUPS: ClassVar[tuple[str, ...]] = ("prompts", "gates")
    tokens: int = 2

class Mine(Method):
    reads_input = True
    def __init__(self, options, shape):
        super().__init__(options, shape)
        self.prompts = nn.ParameterDict({"P": nn.Parameter(torch.randn(options.tokens, shape.width))})
        self.gates = nn.ParameterDict({"g": nn.Parameter(torch.zeros(shape.width))})
    def forward(self, mean):
        gate = torch.sigmoid(mean @ self.gates["g"])[:, None, None]
        return Contribution(prompt=gate * self.prompts["P"])

OPTIONS, METHOD = Options, Mine
"""
YAML = "name: mine\ntokens: 2\nlr:\n  prompts: 0.1\n  gates: 0.1\n"
ENCODER = """
        site = self.shape.first_site
        shape, rows = self.shape.sites[site], len(mean)
        key = gate.unsqueeze(-1).unsqueeze(-1) * self.prompts["P"].sum() * torch.ones(
            rows, shape.layers, shape.heads, 2, shape.head_dim)
        return Contribution({site: KeyValue(key, key)} if self.training else {})
"""
RETURN = '        return Contribution(prompt=gate * self.prompts["P"])\n'
G = 'nn.ParameterDict({"g": nn.Parameter(torch.zeros(shape.width))})'
P = 'gate * self.prompts["P"]'
BROKEN = {  # what is replaced, by what, and what is said
    "a detached gate": (P, f"gate.detach() * {P[7:]}", "parameter gates.g gets no gradient"),
    "a plain tensor": (
        G,
        '{"g": torch.zeros(shape.width)}',
        "group 'gates' has no parameter; its tensors must be nn.Para",
    ),
    "an undeclared group": (
        '("prompts", "gates")',
        '("prompts",)',
        "gates.g is in group 'gates', which the options do not",
    ),
    "a wrong shape": (
        P,
        f"({P})[..., :-1]",
        "must have the shape (B = 1, P, d = 16); got (1, 2, 15)",
    ),
    "a coupled batch": ("gate *", "gate.mean(dim=0, keepdim=True) *", "depends on the other examples of its batch"),
    "a changed backbone": (
        "OPTIONS, METHOD",
        "Mine.attach = lambda self, model, name='default': model.get_input_embeddings().weight.data.mul_(2)\n"
        "OPTIONS, METHOD",
        "the backbone's own weights change when the method is attached",
    ),
    "noise in evaluation": ("gate *", "torch.rand(()) * gate *", "two passes over the same batch differ in evaluation"),
    "an encoder changed in training alone": (RETURN, ENCODER, "changes more layers in this pass than in its first one"),
    "an exception": ("mean @ self", "means @ self", "raises NameError: name 'means' is not defined (mine.py, line 23)"),
    "an attribute that is none": (P, f"({P}).wrong", "'Tensor' object has no attribute 'wrong' (mine.py, line 24)"),
    "an attribute that is none, in a property": (
        "reads_input = True",
        "reads_input = property(lambda self: self.options.wrong)",
        "'Options' object has no attribute 'wrong' (mine.py, line 17)",
    ),
    "a call of torch": ("torch.sigmoid(mean @", "torch.nn.functional.softmax(mean, 7 @", "(mine.py, line 23)"),
    "an effect that is none": ("gate *", "0 * gate *", "is zero in each of 4 steps"),
    "a state beside the parameters": (
        "(mean @",
        "(self.state + mean @",
        "saved and loaded, the adapter gives other",
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(extensions.VARIABLE, str(tmp_path))
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(YAML, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", names())
def test_methods_of_ours_pass(name: str) -> None:
    assert report(name) == []


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_mistake_is_named(mistake: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, text = BROKEN[mistake]
    assert old in METHOD
    source = METHOD.replace(old, new)
    if "state" in new:
        source = source.replace("        self.gates", "        self.state = torch.rand(1)\n        self.gates")
    (folder / "method" / "mine.py").write_text(source, encoding="utf-8")
    assert check("mine") == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(text in line for line in lines), lines
    assert all(line.startswith("method=mine: ") for line in lines)


def test_a_sound_method_and_its_yaml(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "method" / "mine.py").write_text(METHOD, encoding="utf-8")
    assert check("mine", folder) == 0
    assert capsys.readouterr().out == "method=mine: no problem found\n"
    path = folder / "method" / "mine.yaml"
    path.write_text("name: other\nlr: {prompts: 0.1}\ntokns: 3\n", encoding="utf-8")
    assert check("mine", folder) == 1
    output = capsys.readouterr().out
    assert "has name: other; write name: mine" in output and 'did you mean "tokens"?' in output
    assert "a learning rate under lr for each group: prompts, gates" in output


def test_an_unknown_method_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r'method.name="multimusk" is unknown.*did you mean "multimask"'):
        check("multimusk")
