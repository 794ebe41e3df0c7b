"""Several processes at one folder of results: which of the files each of them does, and who tells of all.

Fixed parts need no word between processes: a hash of its name decides about a case (``--part 2/8``, arrays of SLURM).
Under a launcher all share all cases: see `medsegdiff.inference.launched`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from medsegdiff.data.dataset import CaseFiles, Track
from medsegdiff.errors import ConfigError
from medsegdiff.inference.case_record import place_of


@runtime_checkable
class Team(Protocol):
    """Who shares the work."""

    @property
    def leads(self) -> bool:
        """Whether this process looks after what is there before, and tells of all at the end."""
        ...

    @property
    def alone(self) -> bool:
        """Whether there is nobody else."""
        ...

    @property
    def together(self) -> bool:
        """Whether all share all cases, and none is settled before."""
        ...

    @property
    def local(self) -> int | None:
        """Rank among the processes of this machine, where a launcher has started them."""
        ...

    def own(self, files: Sequence[CaseFiles]) -> Sequence[CaseFiles]:
        """Choose those that nobody else does, or all where that is settled as work goes on."""
        ...

    def agreed(self, files: Sequence[CaseFiles], settings: str) -> Sequence[CaseFiles]:
        """Take from the leader what is left to do, and make sure that all do it in the same way."""
        ...

    def pulled(self, files: Sequence[CaseFiles], track: Track) -> Iterator[CaseFiles]:
        """Give files to do, one by one."""
        ...

    def over(self) -> None:
        """Say that nothing more comes from this process; the leader waits for the others."""
        ...

    def rest(self, files: int, missing: int) -> str:
        """Say what others are to do or to tell; nothing where this process tells of all."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process."""

    leads: bool = True
    alone: bool = True
    together: bool = False
    local: int | None = None

    def own(self, files: Sequence[CaseFiles]) -> Sequence[CaseFiles]:
        """All."""
        return files

    def agreed(self, files: Sequence[CaseFiles], settings: str) -> Sequence[CaseFiles]:
        """All."""
        return files

    def pulled(self, files: Sequence[CaseFiles], track: Track) -> Iterator[CaseFiles]:
        """In their order."""
        return iter(files)

    def over(self) -> None:
        """Wait for nobody."""

    def rest(self, files: int, missing: int) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True)
class Part(Alone):
    """One of several parts, each of which a process does on its own; they are about equally many cases."""

    index: int = 1
    count: int = 1
    alone: bool = False

    def own(self, files: Sequence[CaseFiles]) -> Sequence[CaseFiles]:
        """Those whose names fall to this part."""
        return [case for case in files if self.holds(case.name)]

    def holds(self, name: str) -> bool:
        """Tell whether a case falls to this part."""
        return int(place_of(name), 16) % self.count == self.index - 1

    def rest(self, files: int, missing: int) -> str:
        """Say what other parts have not done: a part that is done must not look like all."""
        done = files - missing
        told = f"{done} of {files} images have a record, {missing} belong to other parts and have none yet"
        return f"{told}; 'medsegdiff collect' tells when all are there." if missing else ""

    def __str__(self) -> str:
        return f"part {self.index} of {self.count}"


def part_of(text: str, environment: Mapping[str, str] = os.environ) -> Part:
    """Read ``--part``: 2/8, or ``array`` for the tasks of a SLURM array."""
    if text == "array":
        return _of_array(environment)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--part is {text}; allowed are 1/8 … 8/8, say, and array within an array of SLURM.")
    return Part(index=int(match[1]), count=int(match[2]))


def _of_array(environment: Mapping[str, str]) -> Part:
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")
    try:
        task, count, first = (int(environment[name]) for name in names[:3])
        step = int(environment.get(names[3], "1")) or 1
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"--part array reads {', '.join(names[:3])}, which SLURM sets in 'sbatch --array'; {error} is missing. "
            "With other schedulers give the part: --part $((PBS_ARRAY_INDEX + 1))/8."
        ) from None
    index, rest = divmod(task - first, step)
    if rest or not 0 <= index < count:
        raise ConfigError(
            f"Task {task} of the array is no even step from {first}: parts can't be told from an array with gaps. Give "
            "the part: --part 3/8."
        )
    return Part(index=index + 1, count=count)
