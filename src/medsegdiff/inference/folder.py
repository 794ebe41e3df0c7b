"""Folders of results: what they hold, and what may be written over."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from medsegdiff.errors import ConfigError, some
from medsegdiff.inference import RECORD
from medsegdiff.inference.attempt import BEFORE, Attempt
from medsegdiff.inference.case_record import CASES, RUN
from medsegdiff.inference.record import Record, Settings, read_record
from medsegdiff.inference.review import Review
from medsegdiff.inference.sweeping import remove
from medsegdiff.io.atomic import remove_parts, to_json
from medsegdiff.models.checkpoint import CONFIG
from medsegdiff.registry import require

RATES, MEASURES, SPLIT = "staple.csv", "measures.csv", "split.csv"
WORKLIST, PAGE = "quality.csv", "quality.html"
ON_REQUEST = ("members", "dicom-fractional", "dicom-pm", "dicom-sr", "rtstruct", "geojson")
"""What is written of a result if it is asked for."""
PARTS = ("masks", "labels", "probability", "uncertainty", "anchor", "overlay", "dicom-seg", *ON_REQUEST)
"""What may be written of a result: folders of the folder."""


@dataclass(frozen=True)
class SegmentationFolder:
    """A folder that ``medsegdiff segment`` writes."""

    root: Path

    @classmethod
    def around(cls, part: Path) -> SegmentationFolder:
        """Find the folder of which this is a part: ``anchor``, ``members/00``. What else lies in it is not ours."""
        whole = part.resolve()
        upwards = [above for above in whole.parents[:2] if whole.relative_to(above).parts[0] in PARTS]
        return next((folder for place in (part, *upwards) if (folder := cls(place)).exists), cls(part))

    @property
    def exists(self) -> bool:
        """Whether there are results, or there will be soon."""
        return (self.root / RECORD).is_file()

    def read(self) -> Record | None:
        """Read how the results were made; nothing where ``segment`` did not make them."""
        if not self.exists:
            return None
        record = read_record(self.root / RECORD)
        require(record.plugins, where=self.root)
        return record

    def check_room(self, *, overwrite: bool, inputs: Iterable[Path] = (), resume: bool = False) -> None:
        """Make sure that results overwrite nothing but results, and those only when told to; ``resume`` joins them.

        ``inputs`` are files that are read: they must not go with the earlier results.
        """
        taken = [part for part in ("images", *self._cleared) if (self.root / part).exists()]
        if taken and not self.exists:
            raise ConfigError(
                f"{self.root} holds {some(taken)} that 'medsegdiff segment' did not write, perhaps your data. "
                "Choose another --out."
            )
        if "images" in taken:
            raise ConfigError(f"{self.root} holds images, so its masks may be your references. Choose another --out.")
        if taken and resume and CASES not in taken:
            raise ConfigError(
                f"{self.root} holds results of an earlier version, without records of its cases ({CASES}/), so that "
                "nobody knows what is done. Add --overwrite instead of --resume, or choose another --out."
            )
        if taken and not (overwrite or resume):
            raise ConfigError(
                f"{self.root} holds results already. Add --overwrite to replace them, --resume to do what is missing, "
                "or choose another --out."
            )
        if inside := self._among_cleared(inputs) if taken else []:
            raise ConfigError(
                f"{self.root} holds {some(inside)}, to be read, among the results to be replaced. Choose another --out."
            )

    @contextmanager
    def renewed(self, record: Record, split_file: Path | None, attempt: Attempt) -> Iterator[None]:
        """Write the first new result: when it is there, those of an earlier time are gone; if not, they are back."""
        ours = (*self._cleared, RECORD)  # last what tells that they are results: a kill may come in between
        earlier = [name for name in ours if os.path.lexists(self.root / name)]
        aside = attempt.begin() / BEFORE
        try:
            _move(earlier, self.root, aside)
            self.begin(record, split_file, attempt)
            yield
        except BaseException:  # a full disk, an interruption
            moved = [name for name in earlier if os.path.lexists(aside / name)]
            for name in {*ours} - {*earlier} | {*moved}:
                remove(self.root / name)
            _move(moved, aside, self.root)
            with suppress(OSError):
                aside.rmdir()
            raise
        remove_parts(self.root)
        remove(aside)

    def begin(self, record: Record, split_file: Path | None, attempt: Attempt) -> None:
        """Tell how results will be made, before there is one; if that is told already, it stays."""
        run = self.root / CASES / RUN
        if self.exists and run.is_file() and read_record(run) == record:
            return
        told = to_json(record.model_dump(mode="json", exclude_none=True)) + "\n"
        attempt.write(RECORD, told)  # first what tells that results are ours
        attempt.write(f"{CASES}/{RUN}", told)
        if split_file is not None and not self._is_run:
            attempt.write(SPLIT, split_file.read_text(encoding="utf-8"))

    def tells_of(self, settings: Settings | None) -> bool:
        """Whether it is told that results are made so."""
        run = self.root / CASES / RUN
        return run.is_file() and read_record(run).settings == settings

    @property
    def review(self) -> Review:
        """Which masks a human shall see, as it was asked so far."""
        run = self.root / CASES / RUN
        return read_record(run).review if run.is_file() else Review()

    @property
    def _cleared(self) -> tuple[str, ...]:
        """What goes when results are replaced."""
        ours = (*PARTS, CASES, RATES, MEASURES, WORKLIST, PAGE)
        return ours if self._is_run else (*ours, SPLIT)

    def _among_cleared(self, files: Iterable[Path]) -> list[str]:
        """Find the files that would go, under the name they have or behind a link."""
        cleared = {(self.root / part).resolve() for part in self._cleared}
        folder_of = lru_cache(maxsize=1024)(Path.resolve)  # of many files in few folders
        inner = ((path, folder_of(path.parent) / path.name) for path in files)
        known = ((path, at, path.resolve() if path.is_symlink() else at) for path, at in inner)
        return [str(path) for path, *places in known if any(cleared & {at, *at.parents} for at in places)]

    @property
    def _is_run(self) -> bool:
        """Whether a training run lives here, whose split is its own; results may lie beside it."""
        return (self.root / CONFIG).is_file()


def _move(names: Iterable[str], source: Path, target: Path) -> None:
    """Move parts of a folder into another one on the same disk, made if need be."""
    for name in names:
        target.mkdir(parents=True, exist_ok=True)
        (source / name).rename(target / name)
