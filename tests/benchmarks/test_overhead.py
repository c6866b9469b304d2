"""The benchmark that reaches into the trainer still finds there what it times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_step_and_what_surrounds_it_are_timed() -> None:
    script = "import json; from benchmarks.overhead import measure; print(json.dumps(measure('bundled', 4)))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0 < found["ms around"] < found["ms a step"] and 0 < found["% of a step"] < 100
