"""Commands that are struck by a fault, and what must be true of them afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file

import medsegdiff
from tests.fuzz.promise import contents
from tests.makers import SMALL, make_folder

STEPS = (
    "train.max_steps=4",
    "train.val_every=2",
    "train.save_every=1",
    "train.snapshots=1",
    "train.learning_rate=1e-2",
)
SETS = [part for value in (*SMALL, *STEPS) for part in ("--set", value)]
ONE = ("--members", "2", "--batch-size", "2")
"""One image in a batch: what is done later has the same bits."""
CHANGING = {"seconds", "ended", "attempt"}
"""What a record tells of when and where."""
ROOTS = (Path(__file__).parents[2], Path(medsegdiff.__file__).parents[1])


@dataclass(frozen=True)
class Struck:
    """How a command ended."""

    code: int
    """Its exit code; of a signal, the number with a minus."""
    changes: int
    """To files, that were about to be made."""
    said: str


class Helper:
    """A process that runs commands as if each had a process of its own."""

    def __init__(self, folder: Path) -> None:
        """Start it; what commands say goes to a file in a folder."""
        self.log = folder / "said.txt"
        path = os.pathsep.join(map(str, (*ROOTS, os.environ.get("PYTHONPATH", ""))))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.helper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        self._answer()

    def run(self, *arguments: str | Path, inside: Path, fault: str = "", at: int = 0) -> Struck:
        """Run a command; let a fault strike at the change of that number inside of a folder."""
        Path(f"{self.log}.count").unlink(missing_ok=True)
        job = {"arguments": [str(a) for a in arguments], "inside": str(inside), "fault": fault, "at": at}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**job, "log": str(self.log)}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        return Struck(answer["code"], answer["changes"], self.log.read_text(errors="replace"))

    def _answer(self) -> dict[str, int]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self.process.communicate()


@contextmanager
def helper_in(folder: Path) -> Iterator[Helper]:
    """Have a helper for a while."""
    helper = Helper(folder)
    try:
        yield helper
    finally:
        helper.close()


class Work:
    """A command that writes into a folder, what it would have written without faults, and how to do it again."""

    name: str

    def __init__(self, home: Path, helper: Helper, run: Path) -> None:
        """Do the work once without faults."""
        self.home, self.helper, self.trained = home, helper, run
        self.data = make_folder(home / "data")
        self.whole = self.place("whole")
        done = self.start(self.whole)
        assert done.code == 0, done.said
        self.changes, self.truth, self.inputs = done.changes, self.results(self.whole), contents(self.data)

    def place(self, name: str) -> Path:
        """Name a folder to write to."""
        return self.home / name / "Dataset001_out"

    def start(self, out: Path, *, fault: str = "", at: int = 0) -> Struck:
        """Begin the work."""
        return self.helper.run(*self.command(out), inside=out, fault=fault, at=at)

    def command(self, out: Path) -> tuple[str | Path, ...]:
        """Tell the command."""
        raise NotImplementedError

    def results(self, out: Path) -> dict[str, object]:
        """Read what was made."""
        raise NotImplementedError

    def again(self, out: Path) -> Struck:
        """Do what a user does whose command was stopped."""
        raise NotImplementedError

    def check_left(self, out: Path) -> None:
        """Look at what lies there before anybody does it again."""


def differing(found: dict[str, object], truth: dict[str, object]) -> list[str]:
    """Name what is not the same."""
    return sorted(name for name in {*found, *truth} if found.get(name) != truth.get(name))


class Training(Work):
    """``train``, and ``train --resume``."""

    name = "train"
    settings: tuple[str, ...] = ()
    """Those that are not as usual."""

    def command(self, out: Path) -> tuple[str | Path, ...]:
        more = [part for value in self.settings for part in ("--set", value)]
        return ("train", self.data, "--out", out, "--device", "cpu", *SETS, *more, "--quiet")

    def again(self, out: Path) -> Struck:
        if (out / "state.safetensors").exists():
            return self.helper.run("train", self.data, "--out", out, "--resume", "--device", "cpu", "-q", inside=out)
        return self.start(out)

    def results(self, out: Path) -> dict[str, object]:
        """Weights, averages, moments of the optimizer, progress, validations: bit by bit."""
        found: dict[str, object] = {}
        for file in sorted(out.glob("*.safetensors")):
            found |= {f"{file.name}: {name}": value.tobytes() for name, value in load_file(file).items()}
            with safe_open(file, framework="np") as stored:
                found[f"{file.name}: facts"] = stored.metadata()
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        found["validations"] = [line for line in lines if "dice" in line]
        for name in ("config.json", "split.csv", "calibration.json"):
            found[name] = (out / name).read_text()
        return found

    def check_left(self, out: Path) -> None:
        """Whatever weights have their name are whole."""
        for file in out.glob("[!.]*.safetensors") if out.exists() else ():
            assert load_file(file)


class Segmenting(Work):
    """``segment``, and ``segment --overwrite``."""

    name = "segment"

    def command(self, out: Path) -> tuple[str | Path, ...]:
        pictures = [self.data / "images" / f"case0{number}.png" for number in range(3)]
        return ("segment", *pictures, "-m", self.trained, "--out", out, "--write", "all", *ONE, "-q")

    def again(self, out: Path) -> Struck:
        return self.helper.run(*self.command(out), "--overwrite", inside=out)

    def results(self, out: Path) -> dict[str, object]:
        found: dict[str, object] = dict(contents(out))
        for path in (out / "segment.json", *(out / "cases").glob("*/*.json")):
            told = json.loads(path.read_text())
            found[str(path.relative_to(out))] = {
                key: told[key] for key in told.keys() - {"seconds", "ended", "attempt"}
            }
        return found


class Resuming(Segmenting):
    """``segment``, and ``segment --resume``."""

    name = "segment --resume"

    def again(self, out: Path) -> Struck:
        return self.helper.run(*self.command(out), "--resume", inside=out)


class Sharing(Resuming):
    """``segment --part 1/1``, which others may do at the same time."""

    name = "segment --part"

    def command(self, out: Path) -> tuple[str | Path, ...]:
        return (*super().command(out), "--part", "1/1")

    def again(self, out: Path) -> Struck:
        return self.start(out)


class Replacing(Segmenting):
    """``segment --overwrite``, of results that another seed has given."""

    name = "segment --overwrite"

    def start(self, out: Path, *, fault: str = "", at: int = 0) -> Struck:
        earlier = self.place("earlier")
        if not earlier.exists():
            assert super().start(earlier).code == 0
        shutil.copytree(earlier, out)
        return self.helper.run(*self.command(out), "--seed", "1", "--overwrite", inside=out, fault=fault, at=at)

    def again(self, out: Path) -> Struck:
        return self.helper.run(*self.command(out), "--seed", "1", "--overwrite", inside=out)


class Converting(Work):
    """``data convert`` into a folder that is removed before it is done again."""

    name = "convert"

    def command(self, out: Path) -> tuple[str | Path, ...]:
        return ("data", "convert", self.data, "--to", "folder", "--out", out, "-q")

    def again(self, out: Path) -> Struck:
        shutil.rmtree(out, ignore_errors=True)
        return self.start(out)

    def results(self, out: Path) -> dict[str, object]:
        return dict(contents(out))

    def check_left(self, out: Path) -> None:
        """What is not whole is not taken for a data set."""
        if contents(out) != self.truth:
            assert self.helper.run("data", "check", out, inside=out).code != 0


WORKS = (Training, Resuming, Replacing, Converting)
NIGHTLY = (*WORKS, Segmenting, Sharing)
