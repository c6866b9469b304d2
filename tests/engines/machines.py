"""Machines made of namespaces: each has a host name and a network address of its own, and dies when it is told to."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HEAD = "10.77.0.1"  # address of the machine that the tests themselves run on
SWITCH = "mmpt0"


@dataclass(frozen=True)
class Machine:
    """A network namespace with one cable to the switch.

    Attributes:
        name: Its host name and the name of its namespace.
        address: Its address on the switch.
    """

    name: str
    address: str

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program on this machine, with its host name."""
        own_name = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        return subprocess.Popen(["nsenter", f"--net=/run/netns/{self.name}", *own_name, *words], text=True, **options)

    def run(self, *words: str) -> None:
        """Run a program on this machine and wait for its end."""
        process = self.start(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate()
        assert process.returncode == 0, f"{' '.join(words)} on {self.name}: {output}"

    def pids(self) -> list[int]:
        """Processes that run on this machine."""
        done = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    def power_off(self) -> None:
        """End all its processes at once, as a power cut does."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


@contextlib.contextmanager
def network(*names: str) -> Iterator[list[Machine]]:
    """A switch with machines on it; only they and the caller reach each other, and nothing beyond."""
    machines = [Machine(name, f"10.77.0.{11 + index}") for index, name in enumerate(names)]
    _ip("link", "add", SWITCH, "type", "bridge")
    _ip("addr", "add", f"{HEAD}/24", "dev", SWITCH)
    _ip("link", "set", SWITCH, "up")
    try:
        for machine in machines:
            _connect(machine)
        yield machines
    finally:
        for machine in machines:
            machine.power_off()
            _ip("netns", "delete", machine.name)
        _ip("link", "delete", SWITCH)


def _connect(machine: Machine) -> None:
    name, cable = machine.name, f"{machine.name}-eth"
    _ip("netns", "add", name)
    _ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", cable)
    _ip("link", "set", cable, "master", SWITCH, "up")
    for words in (("addr", "add", f"{machine.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
        _ip("-n", name, *words)
    _ip("-n", name, "link", "set", "lo", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def wait_for(what: str, ready: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} seconds"
        time.sleep(0.2)
    return answer
