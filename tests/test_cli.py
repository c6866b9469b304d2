"""The command line as a user meets it: exit codes, one line a problem, sweeps, own configuration folders."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from mmpt.cli import CONF, main
from mmpt.config.compose import read_command_line
from mmpt.config.schema import Config
from mmpt.errors import ConfigError, DataError
from mmpt.runs import environment
from mmpt.runs.result import Result
from mmpt.utils.files import write_json

TRAIN = Path(__file__).resolve().parents[1] / "train.py"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory that isn't the repository, with a space in its name."""
    folder = tmp_path / "current dir"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """What would have been trained: the place of the trainer is taken, seed 13 fails."""
    seen: list[Config] = []

    def identify(config: Config) -> types.SimpleNamespace:
        return types.SimpleNamespace(directory=Path(f"{config.method.name}-{config.seed}"), fingerprint="")

    def run_experiment(config: Config, resolved: dict[str, Any], identity: Any = None, **_: Any) -> Result:
        assert resolved["task"]["name"] == config.task.name
        if config.seed == 13:
            raise DataError("train.jsonl:4 is broken")
        seen.append(config)
        scores = {split: {"accuracy": 0.5} for split in ("validation", "test")}
        found = {"task": config.task.name, "method": config.method.name, "metric": "accuracy", "scores": scores}
        if identity is not None:  # in a sweep, whose table is made from run directories
            write_json(identity.directory / "result.json", found)
        return Result.from_dict(found)

    def run_directory(config: Config, fingerprint: str) -> Path:
        return Path(config.run.dir or "runs/name")

    for place, functions in (("run", (run_experiment,)), ("identity", (identify, run_directory))):
        module = types.ModuleType(f"mmpt.training.{place}")
        for function in functions:
            setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_runs_what_was_asked(runs: list[Config], elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["task=cb", "method=smop", "trainer.max_steps=20", f"run.dir={elsewhere}/a b", "+seed=3"])
    assert code == 0
    (config,) = runs
    assert (config.task.name, config.method.name, config.trainer.max_steps) == ("cb", "smop", 20)
    assert (config.run.dir, config.seed) == (f"{elsewhere}/a b", 3)
    assert list(elsewhere.iterdir()) == []  # the configuration library writes nothing
    assert capsys.readouterr().err == ""


def test_all_kinds_of_problems_are_told_at_once(runs: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["method=multmask", "method.num_virtul_tokens=3", "trainer.max_stps=3", "cb", "seed=x"]
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4  # what belongs to the unknown method can't be judged
    assert all(line.startswith("error: ") for line in lines)
    for part in ("multimask", "did you mean task=cb?", "max_steps", "seed must be an integer"):
        assert any(part in line for line in lines)
    assert runs == []


def test_a_release_newer_than_those_tested_is_one_warning(
    runs: list[Config], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = re.findall(r"^(torch|transformers)==(\d+)\.(\d+)", (TRAIN.parent / "constraints.txt").read_text(), re.M)
    assert len(pinned) == 2
    assert all((int(major), int(minor)) <= environment.TESTED[name] for name, major, minor in pinned)
    monkeypatch.setattr(environment, "TESTED", {"torch": (1, 99), "transformers": (99, 0), "absent-package": (0, 0)})
    assert main(["-m", "seed=1,2"]) == 0 and len(runs) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"warning: torch \S+ is newer than 1\.99, the last release that mmpt was tested with\n", said)


def test_an_error_of_the_run_is_one_line(runs: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seed=13"]) == 2
    assert capsys.readouterr().err == "error: train.jsonl:4 is broken\n"


def test_interrupting_is_130(monkeypatch: pytest.MonkeyPatch, runs: list[Config]) -> None:
    def stop(config: Config, resolved: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["mmpt.training.run"], "run_experiment", stop)
    assert main([]) == 130


def test_a_sweep_goes_on_after_a_failed_trial(runs: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "seed=1,13,2", "task=rte"]) == 1
    assert [config.seed for config in runs] == [1, 2]
    said = capsys.readouterr()
    done = [line for line in said.out.splitlines() if line.startswith("trial")]
    assert [line.split("  validation")[0] for line in done] == ["trial 1/3  seed=1", "trial 3/3  seed=2"]
    assert said.err.startswith("error: trial 2/3  seed=13: train.jsonl:4 is broken; see ")
    assert "1 trial(s)" in said.err


def test_a_sweep_over_groups(runs: list[Config]) -> None:
    assert main(["task=cb", "-m", "method=smop,prefix", "seed=1,2"]) == 0
    assert [(config.method.name, config.seed) for config in runs] == [
        ("smop", 1),
        ("smop", 2),
        ("prefix", 1),
        ("prefix", 2),
    ]


def test_a_wrong_group_option_stops_a_sweep_before_it_starts(
    runs: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", "method=prefix,smopp"]) == 2
    assert 'did you mean "smop"?' in capsys.readouterr().err
    assert runs == []


def test_own_task_in_an_own_folder(runs: list[Config], elsewhere: Path) -> None:
    (elsewhere / "task").mkdir()
    text = (CONF / "task" / "rte.yaml").read_text(encoding="utf-8").replace("name: rte", "name: mine")
    (elsewhere / "task" / "mine.yaml").write_text(text, encoding="utf-8")
    assert main(["--config-dir", str(elsewhere), "task=mine", "data=local", f"data.dir={elsewhere}"]) == 0
    assert runs[0].task.name == "mine"
    assert main([f"--config-dir={elsewhere}", "task=mine", "data=local", "data.dir=."]) == 0


def test_a_file_of_the_own_folder_replaces_ours(
    runs: list[Config], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also under -m; the first line names it."""
    (elsewhere / "seed.txt").write_text("no setting")
    for name, old, new in (
        ("task/rte", "rte sentence1:", "MINE sentence1:"),
        ("trainer/default", "size: 32", "size: 7"),
    ):
        (elsewhere / name).parent.mkdir()
        text = (CONF / f"{name}.yaml").read_text(encoding="utf-8")
        (elsewhere / f"{name}.yaml").write_text(re.sub(old, new, text), encoding="utf-8")
    assert main(["--config-dir", str(elsewhere), "task=rte"]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("mmpt: rte with multimask on bundled, seed 1; directory: runs/rte-multimask-")
    assert said.endswith(f"; {elsewhere} replaces task/rte.yaml, trainer/default.yaml")
    assert main(["--config-dir", str(elsewhere), "task=rte", "-m", "seed=1,2"]) == 0
    assert [config.task.template for config in runs] == ["MINE sentence1: {premise} sentence2: {hypothesis}"] * 3
    (elsewhere / "config.yaml").write_text("seed: 3", encoding="utf-8")
    assert main(["--config-dir", str(elsewhere), "task=rte"]) == 2
    assert "put a preset into" in capsys.readouterr().err


def test_works_where_hydra_is_initialised_already(runs: list[Config]) -> None:
    """As in a notebook, whose own state is left as it was."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        assert main(["task=cb"]) == 0 and main(["task=cb", "-m", "seed=1,2"]) == 0
        assert GlobalHydra.instance().hydra is before
        assert compose("config", overrides=["seed=5"]).seed == 5
    assert len(runs) == 3


def test_next_commands_are_the_own_words_with_one_change(
    runs: list[Config], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that the check accepts: prefix has no option num_routes."""

    def following(*words: str) -> list[str]:
        assert main(list(words)) == 0
        text = capsys.readouterr().out
        return [line.strip() for line in text[text.index("next:\n") :].splitlines()[1:]]

    (elsewhere / "task").mkdir()
    text = (CONF / "task" / "rte.yaml").read_text(encoding="utf-8").replace("name: rte", "name: mine")
    (elsewhere / "task" / "mine.yaml").write_text(text, encoding="utf-8")
    own = ["--config-dir", str(elsewhere), "task=mine", "data=local", "data.dir=.", "+seed=4", "logger=none"]
    commands = following(*own, "run.dir=a b")
    for command, change in zip(commands, ({"seed": "seed=5"}, {"method": "method=prefix"}), strict=False):
        words = ["seed=5" if word == "+seed=4" and "seed" in change else word for word in own]
        words += [] if "seed" in change else ["method=prefix"]
        assert shlex.split(command) == ["python", "train.py", *words]
        assert main(words) == 0
        capsys.readouterr()
    assert commands[2:] == ["python -m mmpt report .", "python -m mmpt predict 'a b' --input FILE.jsonl"]
    assert len(following("method.num_routes=3")) == 3
    assert "python train.py method=multimask" in following("method=prefix")


@pytest.mark.parametrize("word", ["lr=0.1", "learning_rate=0.1", "method.lr=0.1", "++method.lr=0.1"])
def test_one_learning_rate_names_the_groups_that_have_one(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert "set method.lr.prefix=0.1 method.lr.masks=0.1 method.lr.router=0.1\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("max_steps=3", "did you mean trainer.max_steps?"),
        ("batch_size=3", "set trainer.per_device_train_batch_size"),
        ("epochs=3", "set trainer.num_train_epochs"),
    ],
)
def test_a_setting_without_its_group_is_named_with_it(word: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert part in capsys.readouterr().err


def test_broken_yaml_is_named(runs: list[Config], elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "task").mkdir()
    (elsewhere / "task" / "mine.yaml").write_text("name: [", encoding="utf-8")
    assert main(["--config-dir", str(elsewhere), "task=mine"]) == 2
    said = capsys.readouterr().err
    assert "mine.yaml" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--task", "rte"], "written without dashes: task=rte"),
        (["--config-dir", "nowhere"], "no such directory"),
        (["--cfg", "jb"], "invalid choice: 'jb'"),
        (["--experimental-rerun", "config.pickle"], "unknown flag --experimental-rerun"),
        (["--shell-completion", "install=sh"], "needs install=SHELL or uninstall=SHELL; shells are bash, fish and zsh"),
        (["-sc", "query=bash"], "needs install=SHELL"),
        (["--resolve"], "--resolve shows values without references; add --cfg job"),
        (["-p", "method"], "--package method shows a part of the configuration; add --cfg job"),
        (["--config-dir", ""], "--config-dir '': no such directory"),
        (["-m", "method=glob(*)"], "glob() is not supported; name the options: method=A,B"),
        (["-m", "seed=range(1,3,0)"], "cannot read 'seed=range(1,3,0)'"),
        (["-m", "seed=1,2", "run.root=a,b"], "a sweep has one for all of its trials"),
        (["sweep=[compare,tune]"], "names several options; a run has one"),
        (["-m", "hydra/launcher=foo"], "hydra/launcher/foo"),
        (["seed=${nope}"], "nope"),
    ],
)
def test_flags_and_library_errors_are_one_line(
    words: list[str], part: str, runs: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert part in said
    assert said.count("\n") == 1


def test_a_folder_that_leads_to_itself_is_no_folder(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "self").symlink_to("self")
    assert main(["--config-dir", "self"]) == 2
    assert "--config-dir 'self': no such directory" in capsys.readouterr().err


def test_references_that_stand_for_very_many_values(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["# @package _global_", "a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (elsewhere / "mine/experiment").mkdir(parents=True)
    (elsewhere / "mine/experiment/many.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert main(["--config-dir", "mine", "experiment=many"]) == 2
    said = capsys.readouterr().err
    assert "many.yaml cannot be read: its references stand for more than 1000000 values" in said
    assert said.count("\n") == 1


def test_cfg_job_shows_and_checks(runs: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "task=cb"]) == 0
    assert "name: cb" in capsys.readouterr().out
    assert main(["--cfg", "job", "trainer.max_stps=1"]) == 2
    assert runs == []


def test_every_flag_of_hydra_is_known_but_the_one_that_reads_a_pickle(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--hydra-help"]) == 0
    flags = re.findall(r"^(--[\w-]+)(?:,(-\w+))? :", capsys.readouterr().out, re.MULTILINE)
    names = {name for names in flags for name in names if name}
    assert {"--multirun", "-m", "--config-dir", "-cd"} <= names
    unknown = []
    for name in names - {"--version"}:  # it ends the program
        try:
            read_command_line([name, *(["job"] if name in ("--cfg", "-c") else [])], CONF)
        except ConfigError as error:
            unknown += [name] if str(error).startswith("unknown flag") else []
    assert unknown == ["--experimental-rerun"]


def test_the_shell_completes_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-sc", "install=bash"]) == 0
    assert "complete -o nospace" in capsys.readouterr().out
    monkeypatch.setenv("COMP_LINE", "python train.py method=mu")
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == ["method=multimask"]


def test_help_names_every_group_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for part in ("task: boolq, cb", "method: apt, dept, full, ia3", "trainer.max_steps=20", "--config-dir", "-m"):
        assert part in said
    assert "setting/" not in said and max(map(len, said.splitlines())) <= 80


def test_an_error_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from mmpt.cli import main; code = main(['metod=smop', 'trainer.max_stps=3']);"
        "heavy = {'torch', 'transformers', 'datasets', 'wandb', 'numpy'} & set(sys.modules);"
        "sys.exit(code if not heavy else str(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TRAIN.parent, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 2, done.stderr


@pytest.mark.slow
def test_from_a_path_with_spaces(tmp_path: Path) -> None:
    place = tmp_path / "a path"
    shutil.copytree(
        TRAIN.parent / "mmpt", place / "mmpt", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )
    shutil.copytree(CONF, place / "conf")
    shutil.copy(TRAIN, place)
    done = subprocess.run(
        [sys.executable, str(place / "train.py"), "task=rte", "trainer.max_stps=2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown key trainer.max_stps;")
