"""No private name of another library is imported, read or set: a release of it may change them at any time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWNERS = ("self", "cls")  # our own objects
REVIEWED = {  # path: names that have no public name; each should go as soon as there is one
    # transformers sets the attention publicly, but says only here which one a model runs
    "mmpt/attention/inject.py": {"_attn_implementation"},
    # PyTorch's notes on extending it name this module
    "mmpt/models/peak.py": {"torch.utils._python_dispatch"},
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


def private_modules(source: str) -> set[str]:
    """Modules that are imported, or imported from, and have a part that begins with an underscore."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)} - {"__future__"}
    return {name for name in names if any(part.startswith("_") for part in name.split("."))}


def _is_own(value: ast.expr) -> bool:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in OWNERS


def test_the_check_sees_what_it_should() -> None:
    assert private_attributes("model._init_weights\nself._own\ntrainer.state._x = 1") == {"_init_weights", "_x"}
    assert private_modules("import a._b\nfrom c._d.e import f\nfrom __future__ import g\nimport h") == {
        "a._b",
        "c._d.e",
    }


PATHS = sorted([*ROOT.glob("mmpt/**/*.py"), *ROOT.glob("hydra_plugins/*.py")])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_of_others(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = private_attributes(text) | private_modules(text)
    assert found <= REVIEWED.get(str(path.relative_to(ROOT)), set())


def test_nothing_is_unpickled() -> None:
    for path in ROOT.glob("mmpt/**/*.py"):
        text = path.read_text(encoding="utf-8")
        assert "torch.load(" not in text and "pickle.load" not in text, path
