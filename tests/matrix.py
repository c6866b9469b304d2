"""Run the fast tests with other versions, or as on other processors.

``python -m tests.matrix versions|processors [ROW ...]`` runs each row once and records it in ``tests/matrix.json``.
``python -m tests.matrix table`` prints the tables of docs/compatibility.md. Each row of ``versions`` needs an
environment of its own of up to 8 GB, since old and new releases of PyTorch come only as builds for CUDA, which run on a
CPU too; it is made in ``.venv-matrix/ROW``. The rows of ``processors`` run in this environment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "tests" / "matrix.json"
LOWEST, INSTALLED = ROOT / "constraints-lowest.txt", ROOT / "constraints.txt"

# What a processor rounds, and what else depends on versions.
NUMERIC = [f"tests/{name}" for name in ("cache", "library", "methods", "models", "reference", "training")]
CORE = [*NUMERIC, "tests/config", "tests/data", "tests/runs", "tests/sweep", "tests/test_compatibility.py"]

# name: (Python, file of versions or None for the newest that are allowed)
VERSIONS: dict[str, tuple[str, Path | None]] = {
    "lowest": ("3.11", LOWEST),
    "newest": ("3.11", None),
    "Python 3.12": ("3.12", INSTALLED),
    "Python 3.13": ("3.13", INSTALLED),
}
CAPABILITIES = {
    "SSE": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "all there is": {},
}
# name: (environment variables, tests and options of pytest)
PROCESSORS: dict[str, tuple[dict[str, str], list[str]]] = {
    f"{name}, threads: {threads}": ({"MMPT_TEST_THREADS": threads, **variables}, NUMERIC)
    for name, variables in CAPABILITIES.items()
    for threads in ("1", "2")
}
PROCESSORS |= {f"random order {seed}": ({}, ["-p", "randomly", f"--randomly-seed={seed}"]) for seed in (1, 2, 3)}

ASK = "import platform as p, torch, transformers as t; print(p.python_version(), torch.__version__, t.__version__)"


def environment(row: str) -> str:
    """The interpreter of a row's environment, which is made first."""
    python, versions = VERSIONS[row]
    folder = ROOT / ".venv-matrix" / row.replace(" ", "-")
    interpreter = str(folder / "bin" / "python")
    if (folder / ".installed").exists():
        return interpreter
    subprocess.run([f"python{python}", "-m", "venv", folder], check=True)
    if versions is None:
        wanted = ["--upgrade", "--upgrade-strategy", "eager", "-e", f"{ROOT}[test,text,gguf]"]
    elif versions == LOWEST:  # it names the test tools too, of which import-linter needs a newer rich
        wanted = ["-r", str(LOWEST), "-e", f"{ROOT}[text,gguf]"]
    else:
        wanted = ["-c", str(versions), "-e", f"{ROOT}[test,text,gguf]"]
    subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *wanted], check=True)
    (folder / ".installed").touch()
    return interpreter


def run(row: str, interpreter: str, variables: dict[str, str], options: list[str]) -> bool:
    """Run the fast tests of a row and record what came out."""
    began = time.monotonic()
    command = [interpreter, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "not slow", *options]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, text=True, capture_output=True, check=False)
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    python, torch, transformers = subprocess.check_output([interpreter, "-c", ASK], text=True).split()[-3:]
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record[row] = {
        **{"python": python, "torch": torch, "transformers": transformers},
        **{what.rstrip("s"): int(count) for count, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)},
        "failures": re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{row}: {last}", flush=True)
    return done.returncode == 0


def table(rows: Iterable[str]) -> str:
    """What came out of rows that were run, in Markdown."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    columns = ["python", "torch", "transformers", "passed", "failed", "skipped"]
    lines = ["| row | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        if found := record.get(row):
            lines.append(f"| {row} | " + " | ".join(str(found.get(column, 0)) for column in columns) + " |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the rows that were named, or all of a kind."""
    kind, *named = arguments or [""]
    if kind == "table":
        print(table(VERSIONS) + "\n\n" + table(PROCESSORS))
        return 0
    rows = {"versions": VERSIONS, "processors": PROCESSORS}.get(kind, {})
    if not rows or not rows.keys() >= set(named):
        choices = {"versions": list(VERSIONS), "processors": list(PROCESSORS)}
        print(f"error: {' '.join(arguments) or 'no kind of row'} is unknown; choose from {choices}", file=sys.stderr)
        return 2
    passed = True
    for row in named or rows:
        variables, options = ({}, CORE) if kind == "versions" else PROCESSORS[row]
        passed &= run(row, environment(row) if kind == "versions" else sys.executable, variables, options)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
