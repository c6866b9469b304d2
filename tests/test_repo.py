"""The checkout as a whole: names that must agree, files that must not be there, documents that must be true."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml

import mmpt
from mmpt.cli import main
from mmpt.methods import names

ROOT = Path(__file__).resolve().parents[1]


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).exists()]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(document: str) -> list[str]:
    """Indented lines that start a program of ours; fenced blocks are run whole in test_readme.py."""
    text = re.sub(r"```.*?```", "", read(document), flags=re.S)
    lines = [line.strip().split("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if re.match(r"(python|make) ", line)]


def test_version_is_the_same_everywhere() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert mmpt.__version__ == version
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert re.search(r"^## (\S+)", read("CHANGELOG.md"), re.M)[1] == version  # type: ignore[index]


def test_every_method_has_options_file_and_yaml() -> None:
    settings = {path.stem for path in (ROOT / "conf/method").glob("*.yaml")}
    assert settings == set(names())


def test_readme_names_the_options_of_each_group() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", read("README.md"), re.M)
    assert len(rows) >= 6
    for group, options in rows:
        folder = ROOT / "conf" / group
        found = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")}
        assert set(options.strip().split(", ")) == {name for name in found if "_base" not in name or group == "model"}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_in_documents_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    quoted = "\n".join(re.findall(r"`make [^`]*`|^    make .*", read(document), re.M))
    named = set(re.findall(r"make ([a-z-]+)", quoted))
    assert named and named <= targets


@pytest.mark.parametrize("command", [c for c in commands("README.md") if c.startswith("python train.py")])
def test_readme_commands_compose(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every training command of the README passes the check of settings; nothing is trained."""
    command = command.replace("DIR", str(tmp_path)).replace("CHECKPOINT", str(tmp_path))
    words = [word for word in shlex.split(command)[2:] if word != "-m"]
    words = [word.split(",")[0] if "=" in word else word for word in words]
    shown = [] if "--help" in words or "--cfg" in words else ["--cfg", "job"]
    assert main([*words, *shown]) == 0
    assert capsys.readouterr().out.strip()


def test_links_in_documents_lead_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            assert "://" in target or (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("document", ["docs/reliability.md", "docs/security.md"])
def test_tests_that_documents_name_exist(document: str) -> None:
    """Files, `FILE::NAME`, and words of `-k`: a promise without its test is none."""
    text = read(document)
    places = set(re.findall(r"`(tests/[\w/]+(?:\.py|/))(?:::(\w+))?`", text))
    assert places
    for file, name in places:
        place = ROOT / file
        assert place.exists(), file
        assert not name or re.search(rf"^def {name}\(", place.read_text(encoding="utf-8"), re.M), f"{file}::{name}"
    for line in text.splitlines():
        for word in re.findall(r"`[^`]*-k (\w+)[^`]*`", line):
            sources = [place.read_text(encoding="utf-8") for place in (ROOT / "tests").rglob("test_*.py")]
            assert any(re.search(rf"^def test_\w*{word}", source, re.M) for source in sources), word


def test_every_promise_names_its_test() -> None:
    """Each row of the tables in docs/reliability.md says by what it is shown."""
    rows = [line.split("|")[1:-1] for line in read("docs/reliability.md").splitlines() if line.startswith("| ")]
    promises = [row for row in rows if row[0].strip() != "promise"]
    assert len(promises) > 20
    named = ""
    for row in promises:
        shown = row[1].strip()
        assert len(row) == 4 and (shown.startswith(("`", "the same", "measured by hand")) and row[2].strip()), row
        assert named or not shown.startswith("the same"), row
        named = shown


def test_make_help_lists_every_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.M)
    assert targets is not None
    assert re.findall(r"^make ([a-z-]+)", shown, re.M) == targets[1].split()


def test_no_pickles_and_nothing_large() -> None:
    for path in tracked():
        if "fixtures" in path.parts:  # of an interrupted run: torch's own files, read as tensors alone
            continue
        assert path.suffix not in {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}, path
        assert path.stat().st_size < 10_000_000, path


def test_no_file_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in tracked()
        if path.suffix == ".py" and (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_constraints_fit_the_requirements() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {Requirement(line).name: line for line in read("constraints.txt").splitlines() if not line.startswith("#")}
    exact = {canonicalize_name(name): line.split("==")[1] for name, line in pins.items()}
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    for text in [*project["dependencies"], *extras]:
        requirement = Requirement(text)
        if requirement.name == "mmpt":
            continue  # an extra made of extras
        assert exact[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_every_import_is_a_requirement() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    texts = [*project["dependencies"], *extras]
    required = {re.split(r"[^\w-]", text)[0].lower().replace("-", "_") for text in texts}
    modules = {"yaml": "pyyaml", "hydra": "hydra_core", "sklearn": "scikit_learn"}
    for path in (ROOT / "mmpt").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        for name in {name.split(".")[0] for name in names}:
            if name in sys.stdlib_module_names or name == "mmpt":
                continue
            assert modules.get(name, name) in required, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("module", ["mmpt.training.run", "mmpt", "hydra_plugins.mmpt_ray"])
def test_warnings_that_our_own_lines_cause_are_errors(module: str) -> None:
    for kind in (UserWarning, DeprecationWarning, FutureWarning):
        with pytest.raises(kind):
            warnings.warn_explicit("old", kind, "file.py", 1, module=module)


def test_lowest_versions_are_the_bounds_of_the_requirements() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = (line.split("==") for line in read("constraints-lowest.txt").splitlines() if not line.startswith("#"))
    lowest = {canonicalize_name(name): version for name, version in pins}
    for text in tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]:
        requirement = Requirement(text)
        bounds = [one.version for one in requirement.specifier if one.operator == ">="]
        assert bounds == [lowest[canonicalize_name(requirement.name)]], text
