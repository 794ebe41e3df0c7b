"""A process that has imported everything already, and forks for each command: what is killed costs no imports.

``python -m tests.fuzz.helper`` takes a job a line, as JSON, and answers each with how it ended. A fault strikes at the
n-th change to files inside of a folder; without a fault changes are counted.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.file_events import watched

GROWING = ("open", "os.mkdir")
"""Changes for which a disk needs room; another name needs none."""


def main() -> None:
    """Do jobs until there are none."""
    _import_all()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


def _import_all() -> None:
    """Import what commands import on their way, and what that imports when it is first used."""
    import torch
    from matplotlib.figure import Figure

    import medsegdiff.data.convert
    import medsegdiff.evaluation
    import medsegdiff.inference.files
    import medsegdiff.report.evaluation
    import medsegdiff.training.plan
    import medsegdiff.training.train  # noqa: F401

    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    Figure(layout="constrained").subplots().figure.savefig(io.BytesIO())


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Fork, and wait for what becomes of a command."""
    child = os.fork()
    if child == 0:
        _command(job)
    _, status = os.waitpid(child, 0)
    counted = Path(job["log"] + ".count")
    return {"code": os.waitstatus_to_exitcode(status), "changes": int(counted.read_text()) if counted.exists() else 0}


def _command(job: dict[str, Any]) -> None:
    """Run a command and end as it ends; never return."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code: object = 1
    strike = Strike(Path(job["inside"]), job["fault"], job["at"])
    try:
        from medsegdiff import cli

        sys.argv = ["medsegdiff", *job["arguments"]]
        if job["fault"] == "small files":
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["at"], resource.RLIM_INFINITY))
        with watched(strike):
            cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001  (what Python would show)
        traceback.print_exc()
    Path(job["log"] + ".count").write_text(str(strike.count))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


class Strike:
    """Counts changes to files inside of a folder, and strikes at one of them."""

    def __init__(self, inside: Path, fault: str, at: int) -> None:
        """Know a fault by its name in `FAULTS`; there may be none."""
        self.inside, self.fault, self.at, self.count = inside, FAULTS.get(fault), at, 0

    def __call__(self, event: str, paths: tuple[Path, ...]) -> None:
        """Take notice of a change that is about to happen."""
        if self.inside not in {parent for path in paths for parent in (path, *path.parents)}:
            return
        self.count += 1
        fault, self.fault = self.fault, None  # what it does itself is none of the command's
        try:
            if fault:
                fault(self.count - self.at, event, paths)
        finally:
            self.fault = fault


def _kill(late: int, event: str, paths: tuple[Path, ...]) -> None:
    """Kill as if in the middle of a write: what would have been moved to its place is half there."""
    if late == 0:
        if event == "os.rename" and paths[0].is_file():
            os.truncate(paths[0], paths[0].stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def _terminate(late: int, event: str, paths: tuple[Path, ...]) -> None:
    if late == 0:
        os.kill(os.getpid(), signal.SIGTERM)


def _full(late: int, event: str, paths: tuple[Path, ...]) -> None:
    """Fill the disk, from then on."""
    if late >= 0 and event in GROWING:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths[0]))


def _broken(late: int, event: str, paths: tuple[Path, ...]) -> None:
    """Break the disk, once."""
    if late == 0:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(paths[0]))


def _read_only(late: int, event: str, paths: tuple[Path, ...]) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(paths[0]))


def _no_chmod(late: int, event: str, paths: tuple[Path, ...]) -> None:
    if event == "os.chmod":
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(paths[0]))


def _kill_workers(late: int, event: str, paths: tuple[Path, ...]) -> None:
    if late == 0:
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


FAULTS: dict[str, Callable[[int, str, tuple[Path, ...]], None]] = {
    "killed": _kill,
    "terminated": _terminate,
    "full disk": _full,
    "broken disk": _broken,
    "read-only": _read_only,
    "no chmod": _no_chmod,
    "worker killed": _kill_workers,
}


if __name__ == "__main__":
    main()
