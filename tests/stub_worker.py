"""A worker without a model: it copies results that were made before, and dies when it is told to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

DIES_ONCE, DIES, WAITS, FAILS, TALKS = 101, 102, 103, 104, 105
"""Seeds of jobs on which it does so."""


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def work(results: Path) -> None:
    json.loads(sys.stdin.readline())
    say(event="ready")
    for line in sys.stdin:
        order = json.loads(line)
        if "cancel" in order:
            say(event="cancelled")
            continue
        job, seed = Path(order["job"]), json.loads((Path(order["job"]) / "request.json").read_text())["options"]["seed"]
        say(event="progress", done=1, total=2)
        if seed == DIES or (seed == DIES_ONCE and order["attempt"] == "attempt-1"):
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == WAITS:
            continue
        if seed == FAILS:
            say(event="failed", error="The image is not to my liking.")
            continue
        if seed == TALKS:
            say(event="failed", error="x" * (3 << 20))
            continue
        time.sleep(0.02)
        shutil.copytree(results, job / order["attempt"], dirs_exist_ok=True)
        say(event="done", cases=1, seconds=0.1)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
