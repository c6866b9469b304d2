"""Nothing that comes from elsewhere is executed, followed out of its place, or let near a secret: docs/security.md."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmpt.cli import CONF, main
from mmpt.config.compose import read_command_line
from mmpt.errors import AdapterError, ConfigError, MmptError, RunError
from mmpt.runs.record import RunRecord
from mmpt.utils.files import write_text
from mmpt.utils.secrets import error_line, redact
from mmpt.utils.untrusted import one_line

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    r"^\s*(import|from) (pickle|cPickle|dill|cloudpickle|shelve|marshal|joblib)\b": "objects out of bytes",
    r"(?<![\w.])(eval|exec|compile|__import__)\(": "code out of text",
    r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|trust_remote_code\s*=\s*True": "a library's pickles or code",
    r"torch\.load\((?!.*weights_only=True)": "torch's pickles",
    r"yaml\.(load|load_all)\((?!.*Loader=_LOADER)|yaml\.(unsafe|full)_load|UnsafeLoader|FullLoader": "YAML's objects",
    r"os\.system|os\.popen|shell\s*=\s*True": "a shell",
    r"hydra\.utils\.(instantiate|call)|\binstantiate\(": "objects out of a configuration",
}


class Acts:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that hostile bytes make where somebody unpickles them; they do."""
    place = tmp_path / "canary"
    pickle.loads(pickle.dumps(Acts(place)))
    assert place.exists()
    place.unlink()
    return place


def test_sources_execute_nothing_that_is_read() -> None:
    found = []
    for path in [*(ROOT / "mmpt").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py"), ROOT / "train.py"]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for pattern, what in FORBIDDEN.items():
                if re.search(pattern, line):
                    found.append(f"{path.relative_to(ROOT)}:{number} {what}: {line.strip()}")
    assert not found


@pytest.mark.parametrize(
    "line",
    ["import pickle", "x = eval(text)", "torch.load(p)", "yaml.load(t, yaml.Loader)", "f(x, trust_remote_code=True)"],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert any(re.search(pattern, line) for pattern in FORBIDDEN)


@pytest.mark.parametrize("file", ["adapter.safetensors", "adapter.json"])
def test_a_pickle_called_adapter(file: str, tmp_path: Path, canary: Path) -> None:
    from mmpt.models.adapter_files import read_adapter

    blob = pickle.dumps(Acts(canary))
    content = {"format": 1, "method": {"name": "prefix", "options": {}}, "sha256": hashlib.sha256(blob).hexdigest()}
    (tmp_path / "adapter.safetensors").write_bytes(blob)
    (tmp_path / "adapter.json").write_text(json.dumps(content))
    (tmp_path / file).write_bytes(blob)
    with pytest.raises(AdapterError):
        read_adapter(tmp_path)
    assert not canary.exists()


def test_a_pickle_called_cache_entry(tmp_path: Path, canary: Path) -> None:
    from mmpt.cache.store import Damaged, Store

    store, key, blob = Store(tmp_path, 1.0), "0" * 64, pickle.dumps(Acts(canary))
    store.path(key, "safetensors").write_bytes(blob)
    stated = {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
    store.path(key, "json").write_text(json.dumps(stated))
    with pytest.raises(Damaged):
        store.open(key)
    assert not canary.exists()


def test_parquet_with_a_pickled_type(tmp_path: Path, canary: Path) -> None:
    """Old Arrow unpickled the type of an extension column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mmpt.data.files import read_rows

    extension = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Acts(canary)),
    }
    schema = pa.schema([pa.field("text", pa.string(), metadata=extension)])
    pq.write_table(pa.table({"text": ["a"]}, schema=schema), tmp_path / "x.parquet")
    assert [row for _, row in read_rows(tmp_path / "x.parquet", "x.parquet")] == [{"text": "a"}]
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        "name: odd\ntemplate: '{a}'\nwhat: {_target_: os.system, command: touch CANARY}\n",
        "# @package _global_\nhydra: {callbacks: {x: {_target_: hydra_plugins.mmpt_ray.os.system}}}\n",
        "# @package _global_\nhydra: {job_logging: {formatters: {f: {(): os.system, command: touch CANARY}}}}\n",
        "# @package _global_\nhydra: {job_logging: {handlers: {h: {class: subprocess.Popen, args: touch CANARY}}}}\n",
        "name: odd\ntemplate: !!python/object/apply:os.system ['touch CANARY']\n",
    ],
)
def test_a_configuration_from_elsewhere_executes_nothing(
    content: str, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "odd.yaml").write_text(content.replace("CANARY", str(canary)))
    assert main(["--config-dir", str(tmp_path / "conf"), "task=odd"]) == 2
    told = capsys.readouterr().err
    assert "would construct an object" in told or "could not determine a constructor" in told
    assert not canary.exists()


@pytest.mark.parametrize(
    "word",
    [
        "hydra.launcher._target_=os.system",
        "+hydra.callbacks.x={_target_: os.system}",
        "+hydra.callbacks.x._target_=mmpt.cli.os.system",
        "hydra.sweeper._target_=choice(os.system,os.popen)",
        "hydra.searchpath=[file:///tmp]",
    ],
)
def test_words_construct_nothing(word: str) -> None:
    found = read_command_line([word, "-m"], CONF).problems
    assert len(found) >= 1 and not any("cannot read" in text for text in found), found


def test_another_primary_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config-dir"):
        read_command_line(["--config-path", str(tmp_path)], CONF)


def test_our_own_engines_are_allowed() -> None:
    from mmpt.config.targets import TARGETS, folder_problems

    assert not folder_problems(CONF)
    assert "hydra_plugins.mmpt_ray.RayLauncher" in TARGETS


@pytest.mark.parametrize("name", ["metrics.jsonl", "adapter", "checkpoints", ".lock", "csv/metrics.csv", "wandb"])
def test_a_run_follows_no_link_out_of_its_directory(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    run = tmp_path / "run"
    RunRecord.open(run, resolved={"seed": 1}, fingerprint="f").interrupt()
    link = run / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    with pytest.raises(RunError, match="symbolic link"):
        RunRecord.open(run, resolved={"seed": 1}, fingerprint="f")
    assert outside.read_text() == "precious"
    link.unlink()
    (run / "notes").symlink_to("status.json")
    RunRecord.open(run, resolved={"seed": 1}, fingerprint="f").interrupt()  # links within are somebody's own


def test_files_replace_links_instead_of_following_them(tmp_path: Path) -> None:
    from mmpt.cache.entry import Draft
    from mmpt.utils.locks import holding

    outside = tmp_path / "outside"
    outside.write_text("precious")
    for name in ("result.json", f".result.json.{os.getpid()}.tmp", "k.tmp", "k.lock"):
        (tmp_path / name).symlink_to(outside)
    write_text(tmp_path / "result.json", "new")
    Draft(tmp_path / "k.tmp", {"a": ("F32", (1, 1))})
    with pytest.raises(OSError), holding(tmp_path / "k.lock"):
        pass
    assert outside.read_text() == "precious" and (tmp_path / "result.json").read_text() == "new"


def test_console_gets_no_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mmpt.runs.console import Console

    hostile = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202eb"
    console = Console(tmp_path)
    console.note(hostile)
    console.warn(hostile)
    told = capsys.readouterr().out
    assert "a" in told and all(sign.isprintable() or sign == "\n" for sign in told)
    assert one_line(hostile).isprintable() and len(one_line("x" * 10**6)) < 5000


KEYS = {
    "WANDB_API_KEY": "c0ffee" * 7,
    "HF_TOKEN": "hf_canaryCANARYcanaryCANARYcanary12",
    "OTHER_SECRET": "s3cr3t-canary",
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Secrets where libraries look for them: the environment, netrc and the hub's token file."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home"
    home.mkdir()
    (home / "netrc").write_text("machine api.wandb.ai\n login user\n password netrc-canary-password\n")
    (home / "netrc").chmod(0o600)
    (home / "token").write_text("file-canary-token\n")
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(home / "token"))
    return [*KEYS.values(), "netrc-canary-password", "file-canary-token"]


def test_settings_with_a_secret_are_refused(secrets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["logger.project", "logger.group", "run.dir", "run.root", "model.path"]
    words = [f"{key}='p {secret}'" for key, secret in zip(keys, secrets, strict=True)]
    words += ["logger.entity=${oc.env:WANDB_API_KEY}", "logger.tags=[hf_somebodyElsesTokenOfThirtySigns1]"]
    assert main([*words, f"trainer.hub_token={secrets[0]}"]) == 2
    told = capsys.readouterr()
    for key in (*keys, "logger.entity", "logger.tags"):
        assert f"error: {key} holds a secret" in told.err, key
    assert "trainer.hub_token" in told.err
    assert not any(secret in told.out + told.err for secret in (*secrets, "hf_somebody"))


def test_errors_show_no_secret(secrets: list[str], tmp_path: Path) -> None:
    record = RunRecord.open(tmp_path / "run", resolved={"seed": 1}, fingerprint="f")
    for secret in secrets:
        assert error_line(MmptError(f"can't fetch https://user:{secret}@hub\x1b")) == "can't fetch https://user:***@hub"
    record.fail(RuntimeError(" ".join(secrets)))
    status = (tmp_path / "run" / "status.json").read_text()
    assert "***" in status and not any(secret in status for secret in secrets)
    assert redact("nothing of that") == "nothing of that"


def leaks(root: Path, secrets: list[str]) -> list[str]:
    """Files below a folder that hold a secret, whatever their format says they hold."""
    files = [path for path in root.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [f"{path}: {secret}" for path in files for secret in secrets if secret.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_no_secret_is_written(fails: bool, secrets: list[str], tmp_path: Path) -> None:
    """A real run with W&B (offline) and CSV, or one that fails, and a report: no file and no output has a secret."""
    words = ["experiment=smoke", "logger=[wandb,csv]", f"run.dir={tmp_path / 'runs' / 'r'}", "trainer.max_steps=6"]
    if fails:  # the loss soon is no number
        words += ["method=prefix", "optimizer=adamw", "method.lr.prefix=1e30", "trainer.max_grad_norm=0.0"]
    environment = {**os.environ, "WANDB_MODE": "offline", "MMPT_TRACEBACK": "1", "MMPT_CACHE": str(tmp_path / "cache")}
    commands = [["train.py", *words], ["-m", "mmpt.report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]]
    told = ""
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        told += done.stdout + done.stderr
    assert ("run directory" in told) != fails, told
    assert not [secret for secret in secrets if secret in told]
    assert not leaks(tmp_path / "runs", secrets)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_a_checkpoint_from_elsewhere(file: str, tmp_path: Path, canary: Path) -> None:
    """A run directory whose training state is hostile: it is refused in one line, and nothing in it is executed."""
    from mmpt.config.compose import compose
    from mmpt.training.run import run_experiment
    from mmpt.training.settings import check, plain

    words = ["experiment=smoke", "logger=none", f"run.dir={tmp_path / 'run'}", "trainer.max_steps=4", "method=prefix"]
    words += ["trainer.eval_strategy=steps", "trainer.eval_steps=2"]
    config = check(compose(read_command_line(words, CONF).overrides, CONF))

    class Stop(Exception):
        pass

    def stop(step: int, score: float) -> None:
        if step >= 4:
            raise Stop

    with pytest.raises(Stop):
        run_experiment(config, plain(config), on_score=stop)
    found = sorted((tmp_path / "run" / "checkpoints").glob(f"checkpoint-*/{file}"))
    assert found
    for path in found:
        path.write_bytes(pickle.dumps(Acts(canary)))
    assert run_experiment(config, plain(config)).steps == 4  # no checkpoint is complete: the run begins again
    assert not canary.exists()


def test_every_requirement_is_locked_with_hashes() -> None:
    """The lock has the versions of constraints.txt, all that the project asks for, and hashes for each."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if not line.startswith("#")}
    blocks = re.split(r"^(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(encoding="utf-8"), flags=re.M)[1:]
    locked = {}
    for block in blocks:
        name, version = re.match(r"([\w.-]+)==([^\s;]+)", block).groups()  # type: ignore[union-attr]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), name
        locked[canonicalize_name(name)] = version
    assert {name: version for name, version in locked.items() if exact.get(name, version) != version} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        assert canonicalize_name(Requirement(text).name) in locked, f"{text}: run make lock"
