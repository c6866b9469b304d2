"""No private attribute of another library's object is read or set: a release of it may change them at any time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWNERS = ("self", "cls")  # our own objects
REVIEWED = {  # path: attributes that have no public name; each should go as soon as there is one
    # transformers sets the attention publicly, but says only here which one a model runs
    "mmpt/attention/inject.py": {"_attn_implementation"},
}


def private_attributes(source: str) -> set[str]:
    """Private names on anything but ``self``, ``cls`` and ``super()`` that the file itself does not define."""
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_own(node.value)}
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not _is_own(node.value)
        and node.attr not in own
    }


def _is_own(value: ast.expr) -> bool:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in OWNERS


def test_the_check_sees_what_it_should() -> None:
    assert private_attributes("model._init_weights\nself._own\ntrainer.state._x = 1") == {"_init_weights", "_x"}


PATHS = sorted([*ROOT.glob("mmpt/**/*.py"), *ROOT.glob("hydra_plugins/*.py")])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_attribute_of_others(path: Path) -> None:
    found = private_attributes(path.read_text(encoding="utf-8"))
    assert found <= REVIEWED.get(str(path.relative_to(ROOT)), set())


def test_nothing_is_unpickled() -> None:
    for path in ROOT.glob("mmpt/**/*.py"):
        text = path.read_text(encoding="utf-8")
        assert "torch.load(" not in text and "pickle.load" not in text, path
