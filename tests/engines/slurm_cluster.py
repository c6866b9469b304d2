"""A Slurm of two machines with one core each, its accounting included, from Debian's packages.

Partition ``low`` is preempted by partition ``high``: Slurm sends the signal that the job asked for, and requeues it.
A machine that does not answer for ``DEAD_AFTER`` seconds is down, and its jobs are requeued.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.engines.machines import HEAD, Machine, wait_for

# program -> Debian's package
PROGRAMS = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mariadbd": "mariadb-server",
}
FOLDER = Path("/run/slurm")
DEAD_AFTER = 15
DBD_CONF = f"""
AuthType=auth/munge
DbdHost=head
DbdAddr={HEAD}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
PidFile={FOLDER}/slurmdbd.pid
LogFile={FOLDER}/slurmdbd.log
"""
CONF = f"""
ClusterName=engines
SlurmctldHost=head({HEAD})
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={HEAD}
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={FOLDER}/state
SlurmdSpoolDir={FOLDER}/%n
SlurmctldPidFile={FOLDER}/slurmctld.pid
SlurmdPidFile={FOLDER}/%n.pid
SlurmctldLogFile={FOLDER}/slurmctld.log
SlurmdLogFile={FOLDER}/%n.log
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
SlurmdTimeout={DEAD_AFTER}
KillWait=5
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""
PARTITIONS = """
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""


def missing() -> list[str]:
    """Programs of Slurm that this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@dataclass(frozen=True)
class Slurm:
    """What the tests ask of the cluster."""

    machines: list[Machine]

    def command(self, *words: str) -> str:
        """What one of Slurm's programs prints."""
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def running(self) -> list[tuple[str, str]]:
        """(job, machine) of each task of an array that runs now."""
        lines = self.command("squeue", "--noheader", "--states=RUNNING", "--format=%i %N").splitlines()
        return [(job, machine) for job, machine in map(str.split, lines)]

    def start_machine(self, machine: Machine) -> None:
        """Start a machine's daemon, at first and after it was powered off."""
        machine.run("slurmd", "-N", machine.name)
        state = ["sinfo", "--noheader", f"--nodes={machine.name}", "--format=%t"]
        wait_for(f"{machine.name} in Slurm", lambda: "idle" in self.command(*state))

    def states(self, job: str) -> list[str]:
        """How a job ended each time it was started, as accounting has recorded it."""
        fields = ["--allocations", "--duplicates", "--noheader", "--parsable2", "--format=State"]

        def ended() -> list[str]:
            states = self.command("sacct", f"--jobs={job}", *fields).split()
            return [] if "RUNNING" in states or "PENDING" in states else states

        states: list[str] = wait_for(f"the end of {job} in accounting", ended)
        return states


@contextlib.contextmanager
def slurm(machines: list[Machine]) -> Iterator[Slurm]:
    """Start munge, MariaDB, slurmdbd, slurmctld and a slurmd on each machine; end them afterwards."""
    FOLDER.mkdir(mode=0o755)
    nodes = "".join(f"NodeName={machine.name} NodeAddr={machine.address} CPUs=1\n" for machine in machines)
    (FOLDER / "slurm.conf").write_text(CONF + nodes + PARTITIONS)
    (FOLDER / "slurmdbd.conf").write_text(DBD_CONF)
    (FOLDER / "slurmdbd.conf").chmod(0o600)
    os.environ["SLURM_CONF"] = str(FOLDER / "slurm.conf")
    started: list[subprocess.Popen[bytes]] = []
    cluster = Slurm(machines)
    try:
        started += [_munge(), _database()]
        for daemon in ("slurmdbd", "slurmctld"):
            started.append(_logged(daemon, "-D"))
            if daemon == "slurmdbd":
                wait_for("slurmdbd", lambda: _succeeds("sacctmgr", "--immediate", "add", "cluster", "engines"))
        wait_for("slurmctld", lambda: _succeeds("sinfo"))
        for machine in machines:
            cluster.start_machine(machine)
        yield cluster
    except BaseException:
        for log in sorted([*FOLDER.glob("*.log"), *FOLDER.glob("*.out")]):
            print(f"== {log}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
        raise
    finally:
        for machine in machines:
            machine.power_off()
        for process in reversed(started):
            process.kill()
            process.wait()


def _munge() -> subprocess.Popen[bytes]:
    key = FOLDER / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    socket = Path("/run/munge/munge.socket.2")  # where Slurm's programs look for it
    socket.parent.mkdir()
    files = [f"--key-file={key}", f"--socket={socket}", f"--pid-file={FOLDER}/munge.pid"]
    files += [f"--log-file={FOLDER}/munge.log", f"--seed-file={FOLDER}/munge.seed"]
    process = subprocess.Popen(["munged", "--force", "--foreground", *files], stderr=subprocess.DEVNULL)
    wait_for("munged", socket.exists)
    return process


def _database() -> subprocess.Popen[bytes]:
    """MariaDB with root as its only user; slurmdbd makes its own tables."""
    data, socket = FOLDER / "mariadb", Path("/run/mysqld/mysqld.sock")
    socket.parent.mkdir(exist_ok=True)
    small = [
        "--no-defaults",
        "--user=root",
        f"--datadir={data}",
        "--innodb-log-file-size=8M",
        "--innodb-buffer-pool-size=16M",
    ]
    install = ["mariadb-install-db", "--skip-test-db", "--auth-root-authentication-method=socket"]
    subprocess.run([install[0], small[0], *install[1:], *small[1:]], check=True, capture_output=True)
    process = _logged("mariadbd", *small, f"--socket={socket}", "--skip-networking")
    wait_for("MariaDB", lambda: _succeeds("mariadb", f"--socket={socket}", "-e", "create database slurm"))
    return process


def _logged(*words: str) -> subprocess.Popen[bytes]:
    with (FOLDER / f"{words[0]}.out").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


def _succeeds(*words: str) -> bool:
    with (FOLDER / "asked.log").open("ab") as log:
        return subprocess.run(words, stdout=log, stderr=log).returncode == 0
