"""Tables 1 to 3 for data of one's own: which systems are trained on which data sets, and with which settings."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.config.load import key_of_today, known_keys, load_preset
from medsegdiff.config.run import Config
from medsegdiff.data.open import detect, open_source
from medsegdiff.errors import ConfigError, some
from medsegdiff.paper.given import Given
from medsegdiff.paper.given_data import SMALL, check_there, folder_of, is_made, resolved_name
from medsegdiff.paper.systems import Size, System
from medsegdiff.paper.tables import PaperTable
from medsegdiff.paper.trials import RECIPE, Clock, Trial, claim
from medsegdiff.training.plan import Recipe, config_for

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonPlan:
    """The same for all systems and data sets; an output folder belongs to one plan."""

    table: PaperTable
    given: tuple[Given, ...]
    systems: tuple[System, ...]
    minutes: float
    """For the training steps of each trial."""
    seeds: int = 1
    """Trials of each system on each data set: training seeds 0, 1, 2 …, the same split."""
    size: Size = "tiny"
    recipe: Recipe = "own"
    """Whether each system is trained as its authors did, or all are as V2 is."""
    changes: tuple[str, ...] = ()
    """``section.key=value``, for all; what is of a network, for those that have it."""
    members: int | None = None
    """Of each image; ``None``: the preset's, here and below."""
    steps: int | None = None
    """Of the sampler."""
    cases: int | None = None
    """Most that are scored of a data set, evenly spread."""
    clock: Clock = "wall"
    """What the minutes are measured with."""

    def config(self, system: System, given: Given, seed: int = 0) -> Config:
        """Make the configuration of a trial."""
        small = SMALL if is_made(given.where) else ()
        changes = [*RECIPE, f"train.seed={seed}", *small, *self._layout(given), *self._of(system)]
        device = "cpu" if self.size == "tiny" else None  # which decides about the common recipe alone
        try:
            return config_for(
                Path(), preset=system.preset, recipe=self.recipe, changes=changes, minutes=self.minutes, device=device
            )
        except ConfigError as error:
            raise ConfigError(f"{system.name}: {error}") from None

    def _layout(self, given: Given) -> tuple[str, ...]:
        """Read a folder so that it has the table's structures, where it is known how."""
        found = None if is_made(given.where) or not Path(given.where).exists() else detect(Path(given.where))
        return (f"data.layout={self.table.layouts[found]}",) if found and found in self.table.layouts else ()

    def _of(self, system: System) -> list[str]:
        """Choose the changes that concern a system: not those of networks of another kind."""
        network = load_preset(system.preset).model
        own, every = set(known_keys(type(network))), set(known_keys())
        return [change for change in self.changes if (key := _key(change)) in own or key not in every]

    def check(self) -> None:
        """Make sure that every trial can be configured; say which changes concern no system."""
        if not self.systems:
            raise ConfigError(f"None of the systems has a preset of the size '{self.size}'. Try the other --size.")
        taken = {change for system in self.systems for change in self._of(system)}
        if idle := [change for change in self.changes if change not in taken]:
            log.warning("%s: none of these systems has such a key; nothing is changed.", some(idle))
        if any(_key(change) == "model.name" for change in self.changes):
            raise ConfigError("model.name is what the systems differ in; name them with --systems.")
        for given in self.given:
            check_there(given.where)
            for system in self.systems:
                self.config(system, given)

    def claim(self, out: Path) -> None:
        """Make a folder this plan's own, or find that it is already."""
        grown = {f"data {given.name}": resolved_name(given.where) for given in self.given}
        grown |= {f"preset of {system.name}": system.preset for system in self.systems}
        told = {key: value for key, value in self.told().items() if key not in ("data", "systems", "seeds")}
        claim(out, told | grown, may_grow=("data ", "preset of "))

    def told(self) -> dict[str, Any]:
        """Give the plan as plain values."""
        plain = ("minutes", "seeds", "size", "recipe", "changes", "members", "steps", "cases", "clock")
        return {
            "table": self.table.name,
            "data": {given.name: given.where for given in self.given},
            "systems": {system.name: system.preset for system in self.systems},
            **{name: getattr(self, name) for name in plain},
        }

    def folder(self, given: Given, out: Path) -> Path:
        """Give the folder of a data set; the phantom is written first."""
        return folder_of(given.where, out, self.config(self.systems[0], given).data)

    def trials(self, out: Path) -> list[Trial]:
        """List the trials: a seed of all systems on all data, then the next, so that what is there can be compared."""
        folders = {given.name: self.folder(given, out) for given in self.given}
        return [
            Trial(
                row=system.name,
                data=folders[given.name],
                seed=seed,
                folder=out / "runs" / given.name / system.name / f"seed-{seed}",
                config=self.config(system, given, seed),
                over=given.name,
                members=self.members,
                steps=self.steps,
                cases=self.cases,
                clock=self.clock,
            )
            for seed in range(self.seeds)
            for given in self.given
            for system in self.systems
        ]


def check_data(trials: Iterable[Trial]) -> None:
    """Open every data set that is still to be trained on, once: what can't be read shows before the work."""
    left = {trial.over: trial for trial in trials if not trial.done}
    for trial in left.values():
        open_source(trial.data, trial.config.data)


def _key(change: str) -> str:
    return key_of_today(change.partition("=")[0].strip())
