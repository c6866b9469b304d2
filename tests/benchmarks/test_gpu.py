"""The benchmark of a GPU: everything except the capture of graphs runs on a CPU, and what goes wrong is said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import gpu, gpu_correct, gpu_parts
from benchmarks.graphs import Graphs

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = ["datasets", "hydra", "matplotlib", "omegaconf", "pyarrow", "scipy", "sentencepiece", "sklearn", "wandb"]


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_with_few_packages(tmp_path: Path) -> None:
    """With those that torch, transformers, accelerate and peft need, and no other ones."""
    hidden = f"import sys\nfor name in {NOT_NEEDED}:\n    sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    refused = subprocess.run([sys.executable, "-c", "import hydra"], env=environment, capture_output=True, check=False)
    assert refused.returncode == 1
    words = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == json.loads((tmp_path / "gpu.json").read_text()) and found["ok"]
    assert found["correct"]["compared"] > 30 and found["machine"]["device"] == "cpu"
    ways = [*gpu_parts.PEERS, gpu_parts.GRAPHED]
    assert [row["way"] for row in found["steps"]["tiny"]] == ways * 2
    assert all(row["ms"] > 0 for row in found["steps"]["tiny"])
    assert {name: len(rows) for name, rows in found["trials"].items()} == {"1": 2, "2": 2}
    assert all(row["steps a second, all"] > 0 for rows in found["trials"].values() for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"error: torch \S+ finds no CUDA device; --device cpu --quick runs all parts without one\n"),
        (["--device", "cpu"], "error: --device cpu has no figures of a GPU, and would take hours; add --quick\n"),
    ],
)
def test_what_cannot_start_is_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(words) == 2
    output = capsys.readouterr()
    assert output.out == "" and re.fullmatch(message, output.err)


def test_missing_packages_are_named_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "NEEDED", {"torch": "torch", "absent_module": "absent-package", "absent_too": "other"})
    assert gpu.main(["--device", "cpu", "--quick"]) == 2
    assert capsys.readouterr().err.startswith("error: packages are missing: absent-package, other; install them")


def test_replays_agree_and_stale_inputs_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_correct.graph_difference("cpu") <= gpu_correct.TOLERANCE

    class Stale(Graphs):
        def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
            first = self.captured.get(tuple((name, value.shape, value.dtype) for name, value in inputs.items()))
            return super().__call__(inputs if first is None else first[0])

    monkeypatch.setattr(gpu_correct, "Graphs", Stale)
    assert gpu_correct.graph_difference("cpu") > 100 * gpu_correct.TOLERANCE


def test_a_difference_or_an_error_on_the_device_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = gpu_correct.passed

    def wrong(model_type: str, method: str, device: str) -> gpu_correct.Found:
        if device == "other" and method == "lora":
            raise RuntimeError("no kernel\nand more")
        loss, gradient = passed(model_type, method, "cpu")
        return loss, gradient + (1e-3 * gradient.abs().max() if device == "other" and method == "ia3" else 0)

    monkeypatch.setattr(gpu_correct, "passed", wrong)
    monkeypatch.setattr(gpu_correct, "names", lambda: ("prefix", "ia3", "lora", "mept"))
    monkeypatch.setattr(gpu_correct, "KINDS", ["bert"])
    monkeypatch.setattr(gpu_correct, "graph_difference", lambda device: 0.0)
    found = gpu_correct.correct("other", quick=True)
    assert found["compared"] == 3 and found["refused"] == ["mept on bert"] and found["worst"] == "ia3 on bert"
    assert found["beyond"] == {"ia3 on bert": pytest.approx(1e-3)}
    assert found["failed"] == {"lora on bert": "RuntimeError: no kernel"}


def test_a_part_that_fails_or_comes_too_late_has_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.part(["steps", "--device", "cpu", "--shape", "none"], 100) == {"error": "KeyError: 'none'"}
    assert gpu.part(["steps"], 0) == gpu.part(["steps"], 0.01) == {"error": "no time was left; see --minutes"}
    assert not gpu.ran({"error": ""}) and not gpu.ran([{"ms": 1}, {"error": ""}]) and gpu.ran([{"ms": 1}])
    rows = gpu_parts.trials(1, "none", "cpu", 0.1)
    assert [row["error"] for row in rows] == ["a trial ended with exit code 1"] * 2
