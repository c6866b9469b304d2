"""Adapters to and from a hub: a loopback stand-in of its HTTP API, and every way it can fail in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mmpt
from mmpt.bundled.tasks import records
from mmpt.errors import AdapterError, HubError
from mmpt.interop.hub import push
from tests.adapters import save
from tests.commands import hub as main
from tests.hub import TOKEN, Hub, served, use
from tests.library import plain

REPO = "somebody/rte-multimask"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with served() as server:
        use(server, tmp_path / "home", monkeypatch)
        yield server


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("adapter"), "task=rte", "method=multimask")


def with_result(directory: Path, seed: int = 1, score: float = 0.75) -> Path:
    """Files of a finished run around an adapter."""
    result = {
        "status": "done", "task": "rte", "method": "multimask", "model": "bundled", "seed": seed, "metric": "accuracy",
        "data": {"name": "bundled", "bundled": True, "origin": "x", "train": 5, "validation": 5, "test": 40},
        "scores": {
            "test": {"accuracy": score, "interval": [0.61, 0.88]},
            "validation": {"accuracy": 0.7},
            "majority": {"accuracy": 0.53},
            "chance": {"accuracy": 0.5},
        },
        "parameters": {}, "timing": {}, "memory": {}, "steps": 3, "epochs": 1,
        "config_fingerprint": f"{seed}" * 64, "data_fingerprint": "d", "backbone_fingerprint": "b",
        "versions": {}, "warnings": [],
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    status = {"status": "done", "config_fingerprint": result["config_fingerprint"]}
    config = {"task": {"name": "rte"}, "method": {"name": "multimask"}, "model": {"name": "bundled"}, "seed": seed}
    for name, content in (("result.json", result), ("status.json", status)):
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
    (directory / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return directory


@pytest.mark.parametrize("lfs", [False, True])
def test_pushed_and_loaded_predicts_the_same(hub: Hub, adapter: Path, lfs: bool) -> None:
    hub.lfs = lfs
    url = push(adapter, REPO, private=True)
    assert url.startswith(f"{hub.url}/{REPO}/commit/")
    assert set(hub.repos[REPO]["main"]) == {"adapter.json", "adapter.safetensors", "README.md"}
    assert hub.private == {REPO} and bool(hub.objects) == lfs
    rows = records("rte")["test"][:5]
    wanted = mmpt.load(adapter).predict(rows)
    assert mmpt.load(f"hub:{REPO}").predict(rows) == wanted
    assert mmpt.load(REPO, revision=url.rsplit("/", 1)[1]).predict(rows) == wanted
    fetched = {path.split("/")[-1] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path}
    assert fetched == {"adapter.json", "adapter.safetensors"}  # nothing else is read


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter.safetensors", "."])
def test_nothing_outside_of_a_run_is_pushed(name: str, hub: Hub, adapter: Path, tmp_path: Path) -> None:
    """A run directory from elsewhere could have links to a user's own files."""
    run = tmp_path / "run"
    shutil.copytree(adapter / "adapter", tmp_path / "private" / "adapter")
    shutil.copytree(adapter / "adapter", run / "adapter")
    (tmp_path / "private" / "adapter" / "adapter_config.json").write_text('{"precious": 1}')
    (run / "adapter" / "adapter_model.safetensors").write_bytes((run / "adapter" / "adapter.safetensors").read_bytes())
    link = run / "adapter" / name
    if name == ".":
        link = run / "adapter"
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "private" / "adapter" / name)
    with pytest.raises(HubError, match="is a symbolic link out of"):
        push(run, REPO)
    assert not hub.requests


def test_a_pickle_for_peft_is_not_pushed(hub: Hub, adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(AdapterError, match=r"adapter_model.safetensors is missing or damaged"):
        push(tmp_path, REPO)
    assert not hub.requests


def test_only_the_two_files_of_an_adapter_are_fetched(hub: Hub, adapter: Path, tmp_path: Path) -> None:
    """Whatever else a repository holds stays there: pickles, code, names that are paths."""
    push(adapter, REPO)
    more = ["pytorch_model.bin", "modeling.py", "adapter_model.bin", "../../outside", "optimizer.pt"]
    hub.commit(REPO, {name: pickle.dumps({"a": 1}) for name in more})
    before = len(hub.requests)
    mmpt.load(f"hub:{REPO}")
    asked = {path.split("/resolve/")[1].partition("/")[2] for _, path, _ in hub.requests[before:]}
    assert asked == {"adapter.json", "adapter.safetensors"}
    names = {path.name for path in (tmp_path / "home").rglob("*") if path.is_symlink()}
    assert names == {"adapter.json", "adapter.safetensors"}


def test_a_description_of_any_size_is_not_fetched(hub: Hub, adapter: Path) -> None:
    push(adapter, REPO)
    hub.commit(REPO, {"adapter.json": b" " * (65 * 2**20)})
    with pytest.raises(HubError, match=r"adapter.json of .* has 65 MiB, more than the 64 that it may have"):
        mmpt.load(f"hub:{REPO}")
    assert not [path for method, path, _ in hub.requests if method == "GET" and path.endswith("/adapter.json")]


def test_a_commit_stays_what_it_was_and_needs_no_hub_again(hub: Hub, adapter: Path, tmp_path: Path) -> None:
    first = push(adapter, REPO).rsplit("/", 1)[1]
    push(save(tmp_path / "new", "task=rte", "method=prefix"), REPO)
    assert mmpt.load(f"hub:{REPO}").model.method.options.num_virtual_tokens == 10
    assert type(mmpt.load(f"hub:{REPO}@{first}").model.method).__name__ == "MultiMaskPrefixTuning"
    before = len(hub.requests)
    mmpt.load(REPO, revision=first)
    assert len(hub.requests) == before


def test_the_card_says_what_it_is(hub: Hub, adapter: Path, tmp_path: Path) -> None:
    run = with_result(tmp_path / "runs" / "one")
    shutil.copytree(adapter / "adapter", run / "adapter")
    with_result(tmp_path / "runs" / "two", seed=2, score=0.85)
    push(run, REPO, license="mit", runs=[tmp_path / "runs"], backbone="google-t5/t5-base@" + "a" * 40)
    text = hub.repos[REPO]["main"]["README.md"].decode()
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "mit" and header["base_model"] == "google-t5/t5-base"
    assert header["library_name"] == "mmpt" and "multimask" in header["tags"]
    for words in (
        "num_virtual_tokens: 10",
        f"| revision | `{'a' * 40}` |",
        "| test accuracy | 0.7500 |",
        "| test examples (n) | 40 |",
        "0.6100 to 0.8800",
        "| majority baseline | 0.5300 |",
        "0.8000 ± 0.0707 (mean ± sd, 2 seeds)",
        "no benchmark",
        f'predictor = mmpt.load("{REPO}")',
        '{"premise": "...", "hypothesis": "..."}',
    ):
        assert words in text, words
    pushed = json.loads(hub.repos[REPO]["main"]["adapter.json"])
    assert pushed["backbone"]["path"] == "google-t5/t5-base" and pushed["backbone"]["revision"] == "a" * 40
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert code.count("\n") == 3


def test_without_a_result_a_license_or_a_hub_backbone(
    hub: Hub, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmpt.bundled import MODEL_DIR

    moved = save(tmp_path / "moved", "task=rte", "method=prefix", "model=local", f"model.path={MODEL_DIR}")
    assert main(["card", str(moved), REPO]) == 0
    text = capsys.readouterr().out
    assert "# license: left to you" in text and "license" not in yaml.safe_load(text.split("---")[1])
    assert "There is no result for this adapter" in text
    assert main(["push", str(moved), REPO]) == 0
    assert "names no license" in capsys.readouterr().err
    pushed = json.loads(hub.repos[REPO]["main"]["adapter.json"])
    assert pushed["backbone"]["path"] == MODEL_DIR.name  # no directory of this machine
    assert mmpt.load(f"hub:{REPO}", model=str(MODEL_DIR)).predict(records("rte")["test"][:1])
    hub.commit(REPO, {"README.md": b"mine"})
    assert main(["push", str(adapter), REPO, "--keep-card"]) == 0
    assert hub.repos[REPO]["main"]["README.md"] == b"mine"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("POST", "/api/repos/create", 401), r"refused \(401\).*HF_TOKEN"),
        (("POST", "/commit/", 403), r"refused \(403\).*write access"),
        (("POST", "/commit/", 404), r"hub: .* 404"),
        (("POST", "/api/repos/create", 429), r"refused \(429\): too many requests"),
    ],
)
def test_a_refused_push_is_one_line(
    hub: Hub, adapter: Path, fault: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.faults += [fault] * 9
    with pytest.raises(HubError, match=message) as caught:
        push(adapter, REPO)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value) + "".join(capfd.readouterr())
    assert not hub.repos.get(REPO, {}).get("main")


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([("HEAD", "adapter.json", 401)] * 2, r"401|gives no access"),
        ([("HEAD", "adapter.json", 404)], "404"),
        ([("HEAD", "adapter.json", 429)] * 7, r"\(429\): too many requests"),
        ([("HEAD", "adapter.json", 503)] * 7, "answers 503"),
        ([("GET", "adapter.safetensors", "cut at once")] * 9, "cannot be fetched from"),
    ],
)
def test_a_failed_download_is_one_line(hub: Hub, adapter: Path, faults: Any, message: str) -> None:
    push(adapter, REPO)
    hub.faults += faults
    with pytest.raises(AdapterError, match=message) as caught:
        mmpt.load(f"hub:{REPO}")
    assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)


def test_a_busy_hub_is_asked_again_and_a_cut_reply_resumed(hub: Hub, adapter: Path) -> None:
    push(adapter, REPO)
    hub.faults += [("HEAD", "adapter.json", 429), ("HEAD", "adapter.json", 503)]
    hub.faults += [("GET", "adapter.json", 429), ("GET", "adapter.safetensors", "cut")]
    rows = records("rte")["test"][:3]
    assert mmpt.load(REPO).predict(rows) == mmpt.load(adapter).predict(rows)
    assert not hub.faults and hub.waits[:2] == [1.0, 2.0]  # as its Retry-After says, then with growing patience


def test_names_that_are_wrong(
    hub: Hub, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, message in (
        ("runs/kind", "no directory runs/kind, and runs/kind@main does not exist .*check the name"),
        ("hub:only", "names no repository of the hub"),
        ("hub:../x", "names no repository"),
        (tmp_path / "nothing", "holds no finished adapter"),
        ("../nothing", "holds no finished adapter"),
    ):
        with pytest.raises(AdapterError, match=message):
            mmpt.load(place)
    with pytest.raises(AdapterError, match="is a directory, which has no revision"):
        mmpt.load(adapter, revision="main")
    with pytest.raises(AdapterError, match="says otherwise"):
        mmpt.load("hub:a/b@c", revision="d")
    push(adapter, REPO)
    with pytest.raises(AdapterError, match=r"@v9 does not exist \(RevisionNotFoundError\)"):
        mmpt.load(REPO, revision="v9")
    hub.commit("somebody/model", {"config.json": b"{}", "model.safetensors": b""})
    with pytest.raises(AdapterError, match=r"does not exist .*EntryNotFound"):
        mmpt.load("hub:somebody/model")
    with pytest.raises(HubError, match="no name of a repository"):
        push(adapter, "just-a-name")
    assert main(["push", str(tmp_path), REPO]) == 2
    assert "holds no finished adapter" in capsys.readouterr().err


def test_a_private_repository_needs_the_token(hub: Hub, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(adapter, REPO, private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(AdapterError, match=r"does not exist .* or is private and HF_TOKEN gives no access"):
        mmpt.load(REPO)
    with pytest.raises(HubError, match="401"):
        push(adapter, REPO)


def test_damaged_on_the_way_is_told(hub: Hub, adapter: Path) -> None:
    push(adapter, REPO)
    content = bytearray(hub.repos[REPO]["main"]["adapter.safetensors"])
    content[-3] ^= 1
    hub.commit(REPO, {"adapter.safetensors": bytes(content)})
    with pytest.raises(AdapterError, match="checksum"):
        mmpt.load(REPO)


def test_the_library_pushes_a_model_and_loads_its_adapter_by_the_repositorys_name(hub: Hub) -> None:
    given = plain.batch("llama")
    model = mmpt.adapt(plain.model("llama"), mmpt.Prefix(), name="first", seed=1)
    mmpt.adapt(model, mmpt.MultiMask(), name="second", seed=2)
    url = mmpt.push(model, REPO, name="first", backbone="meta-llama/Llama-3.2-1B")
    assert url.startswith(f"{hub.url}/{REPO}/commit/")
    readme = hub.repos[REPO]["main"]["README.md"].decode()
    assert f'mmpt.load_adapter(model, "{REPO}")' in readme and "base_model: meta-llama/Llama-3.2-1B" in readme
    mmpt.set_adapter(model, "first")
    again = mmpt.load_adapter(plain.model("llama"), REPO)
    with torch.no_grad():
        assert torch.equal(again(**given).logits, model(**given).logits)
    with pytest.raises(AdapterError, match=r"no adapter 'firs'; .*did you mean .first"):
        mmpt.push(model, REPO, name="firs")
    with pytest.raises(AdapterError, match="has no adapter; give it one"):
        mmpt.push(plain.model("llama"), REPO)


@pytest.mark.slow
def test_through_the_environment(tmp_path: Path, adapter: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment |= {"HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    with served() as hub:
        environment["HF_ENDPOINT"] = hub.url
        command = [sys.executable, "-m", "mmpt.hub", "push", str(adapter), REPO]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        assert found.stdout.startswith(hub.url) and TOKEN not in found.stdout + found.stderr
        assert hub.repos[REPO]["main"]["adapter.json"]


def test_a_backbone_from_the_hub_is_pinned_to_its_commit(hub: Hub) -> None:
    from mmpt.bundled import MODEL_DIR
    from mmpt.config.schema import ModelConfig
    from mmpt.models.backbone import load_backbone

    files = {path.name: path.read_bytes() for path in MODEL_DIR.iterdir()}
    commit = hub.commit("toys/t5", files)
    backbone = load_backbone(ModelConfig("toy", source="hub", path="toys/t5"))
    assert backbone.revision == commit
    hub.commit("toys/t5", {"config.json": b"{}"})
    again = load_backbone(ModelConfig("toy", source="hub", path="toys/t5", revision=commit))
    assert again.fingerprint == backbone.fingerprint
