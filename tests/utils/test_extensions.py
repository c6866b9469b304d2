"""Extension files: only folders that the user names are read, and what is wrong with a file is one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmpt.errors import ConfigError
from mmpt.utils import extensions


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one file of each kind, which nothing names yet."""
    for variable in (extensions.VARIABLE, extensions.METHOD_FOLDERS):
        monkeypatch.setenv(variable, "")
    for kind in ("method", "metric", "loss"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "mine.py").write_text(f"KIND = {kind!r}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("kind", ["method", "metric", "loss"])
def test_a_named_folder_has_all_kinds_and_others_are_never_read(kind: extensions.Kind, directory: Path) -> None:
    assert extensions.load(kind, "mine") is None and extensions.names(kind) == []
    extensions.add_folder(directory)
    module = extensions.load(kind, "mine")
    assert module is not None and kind == module.KIND and extensions.names(kind) == ["mine"]
    assert extensions.load(kind, "mine") is module, "executed once"
    for name in ("../method/mine", "os", str(directory / "mine"), "_mine", "", 3, None, ["mine"]):
        assert extensions.load(kind, name) is None


def test_the_last_folder_comes_first_and_child_processes_inherit_all(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "metric").mkdir(parents=True)
    (other / "metric" / "mine.py").write_text("KIND = 'other'\n", encoding="utf-8")
    extensions.add_folder(directory)
    extensions.add_folder(other)
    extensions.add_folder(other)
    module = extensions.load("metric", "mine")
    assert module is not None and module.KIND == "other"
    assert os.environ[extensions.VARIABLE] == f"{other}{os.pathsep}{directory}"


def test_folders_of_methods_alone_are_still_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(extensions.METHOD_FOLDERS, str(directory / "method"))
    assert extensions.find("method", "mine") == (directory / "method" / "mine.py").resolve()
    assert extensions.find("loss", "mine") is None


@pytest.mark.parametrize(
    ("text", "word"),
    [("import nothing_like_this", "ModuleNotFoundError"), ("x = (", "SyntaxError"), ("raise SystemExit(3)", "Exit: 3")],
)
def test_a_file_that_cannot_be_imported_is_one_line(text: str, word: str, directory: Path) -> None:
    extensions.add_folder(directory)
    path = directory / "loss" / "broken.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        extensions.load("loss", "broken")
    message = str(caught.value)
    assert message.startswith(f"loss file {path} cannot be imported: ") and word in message and "\n" not in message
