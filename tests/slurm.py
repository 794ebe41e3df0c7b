"""A real SLURM on this machine, for as long as a test takes: munge, slurmctld and one slurmd, as Debian has them."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={home}/munge.socket,cred_expire=5
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=1
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Name what is not installed."""
    return ", ".join(name for name in NEEDED if not program(name))


def program(name: str) -> str | None:
    """Find a program; daemons lie where only root looks."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


@dataclass(frozen=True)
class Slurm:
    """A cluster of one node that says it has four processors."""

    home: Path
    environment: dict[str, str]

    def ask(self, *command: str | Path) -> str:
        """Run a command of SLURM."""
        done = subprocess.run(list(command), env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}{self.said()}"
        return done.stdout.strip()

    def submit(self, *arguments: str | Path) -> str:
        """Submit a job; give its number."""
        return self.ask("sbatch", "--parsable", *arguments)

    def states(self, job: str) -> list[str]:
        """Tell the state of each task of a job that SLURM still knows."""
        told = self.ask("scontrol", "--oneliner", "show", "job", job)
        return [word.partition("=")[2] for word in told.split() if word.startswith("JobState=")]

    def ended(self, job: str) -> list[str]:
        """Wait until all tasks of a job have ended."""
        wait_for(lambda: not {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"} & {*self.states(job)}, self.said)
        return self.states(job)

    def said(self) -> str:
        """Read the logs of the daemons and the output of jobs."""
        files = [*sorted(self.home.glob("*.log")), *sorted(self.home.glob("*.out"))]
        return "".join(f"\n{file.name}:\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def wait_for(done: Callable[[], bool], said: Callable[[], str] = str, *, seconds: float = 120) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, f"not in {seconds} s{said()}"
        time.sleep(0.05)


@contextmanager
def slurm(path: str) -> Iterator[Slurm]:
    """Start a cluster, whose jobs find commands on a path, and end it."""
    home = Path(tempfile.mkdtemp(prefix="slurm-"))  # names of sockets must be short
    daemons: list[subprocess.Popen[bytes]] = []
    host = socket.gethostname().partition(".")[0]
    (home / "slurm.conf").write_text(CONF.format(home=home, host=host, user=getpass.getuser(), ports=free_ports(2)))
    (home / "munge.key").touch(mode=0o600)
    (home / "munge.key").write_bytes(secrets.token_bytes(1024))
    for name in ("state", "spool"):
        (home / name).mkdir()
    environment = {**os.environ, "SLURM_CONF": str(home / "slurm.conf"), "PATH": path}
    cluster = Slurm(home, environment)

    def start(name: str, *arguments: str | Path) -> None:
        with (home / f"{name}.log").open("wb") as log:
            command = [program(name) or name, *map(str, arguments)]
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home))

    try:
        files = [f"--{kind}-file={home / 'munge'}.{kind}" for kind in ("key", "pid", "log", "seed")]
        start("munged", "--foreground", "--force", f"--socket={home / 'munge.socket'}", "--num-threads=1", *files)
        wait_for((home / "munge.socket").exists, cluster.said, seconds=20)
        start("slurmctld", "-D", "-c")
        start("slurmd", "-D")
        wait_for(lambda: "idle" in _nodes(environment), cluster.said, seconds=30)
        yield cluster
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(home, ignore_errors=True)


def _nodes(environment: dict[str, str]) -> str:
    asked = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True, check=False
    )
    return asked.stdout


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
