"""Processes that a launcher has started (torchrun, ``accelerate launch``, srun): they pull cases from PyTorch's store.

The store counts, and whoever asks it for the next number does the case of that number. One that dies takes its last
cases with it; the first process does them in the end. A launcher that starts all anew may keep the store: what was
counted before must not count again, so the first process begins a page of its own, on which the others are let.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from medsegdiff.data.dataset import CaseFiles, Track
from medsegdiff.errors import ConfigError
from medsegdiff.inference.case_record import bytes_of
from medsegdiff.inference.team import Alone, Part, Team, part_of

log = logging.getLogger(__name__)

PATIENCE = timedelta(days=7)
"""How long one waits for the first process to look through a folder, and for a very long case."""
GREET = 0.5
"""Seconds after which the first process looks whether another has come."""
BEAT, SILENT = 5.0, 60.0
"""Seconds between two signs of life, and without one after which a process counts as dead."""


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int, int] | None:
    """Tell rank, number of processes and rank on this machine, if a launcher has started several."""
    for rank, world, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # of srun alone: sbatch sets others
    ):
        if rank in environment and int(environment.get(world, "1")) > 1:
            return int(environment[rank]), int(environment[world]), int(environment.get(local, "0"))
    return None


@dataclass(eq=False)
class Launched:
    """Processes that a launcher has started, around PyTorch's store."""

    store: Store
    rank: int
    world: int
    local: int = 0
    """Rank on this machine."""
    alone: bool = False
    together: bool = True
    page: Store = field(init=False)
    """Of these processes, since they were started; see `agreed`."""
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _left: threading.Event = field(default_factory=threading.Event, init=False)

    @property
    def leads(self) -> bool:
        """Whether this is the first of them."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"process {self.rank + 1} of {self.world}"

    def own(self, files: Sequence[CaseFiles]) -> Sequence[CaseFiles]:
        """Whoever comes first does a file."""
        return files

    def agreed(self, files: Sequence[CaseFiles], settings: str) -> Sequence[CaseFiles]:
        """Take names from the leader, the largest files first: none of them is begun when all others are done."""
        if self.leads:
            ordered = sorted(files, key=lambda case: -sum(map(bytes_of, case.images)))
            called = secrets.token_hex(8)
            self.page = PrefixStore(called, self.store)
            self.page.set("todo", json.dumps([settings, [case.name for case in ordered]]))
            threading.Thread(target=self._greet, args=(called,), daemon=True).start()
            return ordered
        self.page = PrefixStore(self._come(), self.store)
        theirs, names = json.loads(self.page.get("todo"))
        by_name = {case.name: case for case in files}
        if theirs != settings or not set(names) <= set(by_name):
            raise ConfigError(
                f"{self} has other {'settings' if theirs != settings else 'images'} than the first. Give all the same "
                "command, and the same files and weights."
            )
        return [by_name[name] for name in names]

    def pulled(self, files: Sequence[CaseFiles], track: Track) -> Iterator[CaseFiles]:
        """Give the next file that nobody has taken; the leader shows how far all have come."""
        self._begin_to_beat()
        steps, shown = iter(track(files, "Segmenting") if self.leads else ()), 0
        while (place := self.page.add("taken", 1) - 1) < len(files):
            shown += len(list(itertools.islice(steps, place + 1 - shown)))
            yield files[place]
        deque(steps, maxlen=0)

    def over(self) -> None:
        """Say so; the leader waits until all others have, or are dead."""
        self._ended.set()
        self.page.add("over", 1)
        if self.leads:
            self._wait_for_others()
        self._left.set()

    def _wait_for_others(self) -> None:
        beats, since = dict[int, int](), dict[int, float]()
        while self.page.add("over", 0) < self.world:
            for rank in range(1, self.world):
                beat = self.page.add(f"beat/{rank}", 0)
                if beats.get(rank) != beat:
                    beats[rank], since[rank] = beat, time.monotonic()
            if time.monotonic() - max(since.values()) > SILENT:
                log.warning("Some processes ended before their work was done; the first one does what they have left.")
                return
            time.sleep(0.2)

    def rest(self, files: int, missing: int) -> str:
        """Leave it to the leader."""
        return "" if self.leads else "The first process tells of all."

    def _come(self) -> str:
        """Tell the first process that this one is here, and wait to be let on its page."""
        called = secrets.token_hex(8)
        self.store.set(f"here/{self.rank}", called)
        self.store.add("knocks", 1)
        self.store.wait([f"page/{called}"], PATIENCE)
        return self.store.get(f"page/{called}").decode()

    def _greet(self, page: str) -> None:
        """Let others on the page as they come; some that are named may be dead."""
        knocks = -1
        while True:
            before, knocks = knocks, self.store.add("knocks", 0)
            for rank in range(1, self.world) if knocks != before else ():
                if self.store.check([f"here/{rank}"]):
                    self.store.set(f"page/{self.store.get(f'here/{rank}').decode()}", page)
            if self._left.wait(GREET):
                return

    def _begin_to_beat(self) -> None:
        """Give signs of life until all is over, or the process is."""

        def beat() -> None:
            while not self._ended.wait(BEAT):
                self.page.add(f"beat/{self.rank}", 1)

        threading.Thread(target=beat, daemon=True).start()


def team_of(part: str | None, environment: Mapping[str, str] = os.environ) -> Team:
    """Find out whether others work beside this process: as ``--part`` says, or a launcher."""
    started = launched(environment)
    if part is not None:
        if started is not None:
            raise ConfigError(f"--part is {part}, and a launcher has started {started[1]} processes. Take one of both.")
        return part_of(part, environment)
    if started is None:
        return Alone()
    rank, world, local = started
    if "MASTER_ADDR" not in environment:  # srun, which tells nobody where the first process runs
        return Part(index=rank + 1, count=world, local=local)
    store, rank, world = next(rendezvous("env://", rank=rank, world_size=world, timeout=PATIENCE))
    return Launched(PrefixStore("medsegdiff", store), rank, world, local=local)


def device_of(team: Team) -> str | None:
    """Give each process of a machine a GPU of its own; ``None``: the best device there is."""
    if team.local is None or not torch.cuda.is_available():
        return None
    return f"cuda:{team.local % torch.cuda.device_count()}"
