"""Run the tests of real engines as root: ``python -m tests.engines [slurm] [ray] [torchrun] [scale] [PYTEST_OPTION]``.

Everything runs in namespaces of its own: no address outside can be reached and /run is private. When this program ends,
in whatever way, the kernel ends every process inside.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.engines.machines import HEAD
from tests.engines.slurm_cluster import PROGRAMS

HERE = Path(__file__).parent
FILES = {name: f"check_{name}.py" for name in ("torchrun", "ray", "slurm")} | {"scale": "test_scale.py"}
TOOLS = {"ip": "iproute2", "unshare": "util-linux", "setpriv": "util-linux", "nsenter": "util-linux"}
HOSTS = f"127.0.0.1 localhost\\n{HEAD} head\\n10.77.0.11 n1\\n10.77.0.12 n2\\n"
# the shell is process 1: it collects what daemons leave behind
INSIDE = f"""
mount -t tmpfs -o mode=755 engines /run && mkdir /run/tmp && ip link set lo up && hostname head &&
printf '{HOSTS}' > /run/hosts && mount --bind /run/hosts /etc/hosts && "$@"
exit $?
"""


def install(programs: dict[str, str]) -> None:
    """Install Debian packages of programs that are missing; where that fails, the tests that need them say so."""
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if missing and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "-qq", *words], env=environment, stdout=subprocess.DEVNULL)


def main(words: list[str]) -> int:
    """Run the tests of the named engines, or of all."""
    if os.geteuid() != 0:
        print("skipped: tests of engines make network namespaces, which needs root", file=sys.stderr)
        return 0
    chosen = [word for word in words if word in FILES] or list(FILES)
    install(TOOLS | (PROGRAMS if "slurm" in chosen else {}))
    if missing := [program for program in TOOLS if shutil.which(program) is None]:
        print(f"skipped: {', '.join(missing)} not installed, and apt-get could not install it", file=sys.stderr)
        return 0
    files = [str(HERE / FILES[name]) for name in chosen]
    options = [word for word in words if word not in FILES]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", *files, *options]
    namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"]
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "bash", "-c", INSIDE, "bash", *pytest]
    own = {"TMPDIR": "/run/tmp", "HOME": "/run/tmp", "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    environment = {**os.environ, **own, "RAY_AUTH_MODE": "disabled"}
    process = subprocess.Popen(command, cwd=HERE.parents[1], env=environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # pytest has it from the terminal too, and ends in good order
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
